"""The zygote's children: its workers, the app's own processes, and leftovers of dead workers.

A child that the zygote forked is a worker; one that existed after the import is the app's and is
left alone; any other one was orphaned by a worker that died (live workers are subreapers of their
own descendants), and is killed and reaped.
"""

from __future__ import annotations

import os

from taskd.posix import cgroup, native, process, tree
from taskd.posix.cleaners import Patience
from taskd.record import Record


class Death(Record):
    """A worker is dead and its tree gone; ``status``: as returned by waitpid."""

    worker: bytes
    pid: int
    status: int


class Children:
    """``dying``: dead workers that may have leftovers. ``unnoted``: deaths that ``reap`` has
    returned and no master has noted yet, by the worker's id; a new master is told them again.

    Invariant: ``reap`` returns a death once, and only when the worker has no leftover.
    """

    def __init__(self) -> None:
        self._apps_own = frozenset(tree.children())
        self._alive: dict[int, bytes] = {}
        self._groups: dict[bytes, str] = {}
        self._patience = Patience()  # with the leftovers of dying workers
        self.dying: list[Death] = []
        self.unnoted: dict[bytes, Death] = {}

    @property
    def alive(self) -> bool:
        """Whether any worker lives or still has leftovers."""
        return bool(self._alive or self.dying)

    @property
    def is_empty(self) -> bool:
        """Whether no worker lives, and no death is still to be noted."""
        return not (self.alive or self.unnoted)

    def add(self, worker: bytes, pid: int, group: str = "") -> None:
        """Add a worker that was forked. ``group``: its control group, or empty."""
        self._alive[pid] = worker
        if group:
            self._groups[worker] = group

    def known(self) -> list[list[object]]:
        """Every worker that a new master has to know of: id, pid and start time (0: dead)."""
        alive = [[worker, pid, process.start_time(pid) or 0] for pid, worker in self._alive.items()]
        return [
            *alive,
            *([death.worker, death.pid, 0] for death in [*self.dying, *self.unnoted.values()]),
        ]

    def forget(self, worker: bytes) -> None:
        """The master has noted that death."""
        self.unnoted.pop(worker, None)

    def reap(self) -> list[Death]:
        """Reap dead workers and kill their leftovers; returns the deaths whose tree is gone now.
        Call on every SIGCHLD."""
        for pid in list(self._alive):
            dead, status = native.waitpid(pid, os.WNOHANG)
            if dead:
                self.dying.append(Death(self._alive.pop(pid), pid, status))
        if not self.dying:
            return []
        # All processes of a worker's group, of whichever owner, but helpers that end soon.
        left = [
            cgroup.end(self._groups[each.worker], self._patience)
            for each in self.dying
            if each.worker in self._groups
        ]
        if tree.strike(self._apps_own | self._alive.keys(), self._patience) or any(left):
            return []
        over, self.dying, self._patience = self.dying, [], Patience()
        for death in over:
            self._groups.pop(death.worker, None)
            self.unnoted[death.worker] = death
        return over

"""The zygote's children: its workers, the app's own processes, and leftovers of dead workers.

Three kinds, told apart by what the zygote did itself: those it forked are workers; those that
were there after import are the app's and are let be; any other child was orphaned by a worker
that died (live workers are subreapers and keep their own), and is killed and reaped.
"""

from __future__ import annotations

import os

from taskd.posix import cgroup, native, process, tree
from taskd.posix.cleaners import Patience
from taskd.record import Record


class Death(Record):
    """A worker is dead and its tree gone; ``status`` is as waitpid gives it."""

    worker: bytes
    pid: int
    status: int


class Children:
    """Invariant: a death is told once, only when no leftover is there, and kept until noted."""

    def __init__(self) -> None:
        self._apps_own = frozenset(tree.children())
        self._alive: dict[int, bytes] = {}
        self._groups: dict[bytes, str] = {}
        self._dying: list[Death] = []
        self._patience = Patience()  # with what the dying have left behind
        self._told: dict[bytes, Death] = {}

    @property
    def alive(self) -> bool:
        """Whether any worker lives or still has leftovers."""
        return bool(self._alive or self._dying)

    @property
    def is_empty(self) -> bool:
        """Whether nothing lives and nothing is left to be noted."""
        return not (self.alive or self._told)

    @property
    def is_dying(self) -> bool:
        """Whether something of a dead worker still lives."""
        return bool(self._dying)

    def add(self, worker: bytes, pid: int, group: str = "") -> None:
        """``group``: the control group that it is in, if it is."""
        self._alive[pid] = worker
        if group:
            self._groups[worker] = group

    def known(self) -> list[list[object]]:
        """Every worker that a master must count with: its id, pid and start time (0: dead)."""
        alive = [[worker, pid, process.start_time(pid) or 0] for pid, worker in self._alive.items()]
        dead = [*self._dying, *self._told.values()]
        return [*alive, *([death.worker, death.pid, 0] for death in dead)]

    def told(self) -> list[Death]:
        """Deaths that no master has noted: each new one is told again."""
        return list(self._told.values())

    def forget(self, worker: bytes) -> None:
        """The master has noted that exit."""
        self._told.pop(worker, None)

    def bury(self) -> list[Death]:
        """Reap what died; returns the deaths that can be told now. Call on every SIGCHLD."""
        for pid in list(self._alive):
            dead, status = native.waitpid(pid, os.WNOHANG)
            if dead:
                self._dying.append(Death(self._alive.pop(pid), pid, status))
        if not self._dying:
            return []
        left = [self._end_group(death.worker) for death in self._dying]
        if tree.strike(self._apps_own | self._alive.keys(), self._patience) or any(left):
            return []
        told, self._dying, self._patience = self._dying, [], Patience()
        for death in told:
            self._groups.pop(death.worker, None)
        self._told.update((death.worker, death) for death in told)
        return told

    def _end_group(self, worker: bytes) -> bool:
        """Kill what is in it, whoever's it is; helpers end by themselves, if they do so soon. True
        while anything lives."""
        group = self._groups.get(worker)
        return group is not None and cgroup.end(group, self._patience)

"""Helper processes that clean up after others end: they are not killed for a moment.

multiprocessing's resource tracker (and joblib's, which is made like it) unlinks shared memory and
semaphores when the last process that holds its pipe has ended. If it is killed with the rest of a
process tree, they stay in /dev/shm until the machine is restarted. A helper is known by this: to
outlive the others, it ignores or blocks both SIGINT and SIGTERM.

Used in every process that kills. Invariant: all helpers in a tree that is being killed are spared
for GRACE seconds together, counted from the first that was found. So a process that only looks like
a helper gains no more than that, nor do many of them, one after the other. On a busy machine, the
time in which a helper was ready and got no CPU is not counted, up to STARVED seconds.
"""

from __future__ import annotations

import signal
from time import monotonic

from taskd.posix import starved

GRACE = 1.0
"""Seconds."""

STARVED = 20.0
"""Seconds that are not counted, at most."""

PAUSE = 0.005
"""Seconds between two looks at whether a helper has ended."""

_POLITE = 1 << (signal.SIGINT - 1) | 1 << (signal.SIGTERM - 1)


class Patience:
    """For the helpers in one process tree, from the first look at it to the last."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._spared: dict[int, starved.Threads] = {}  # by pid, as they were when they were found
        self._lost = 0.0

    def lets_be(self, pid: int) -> bool:
        """Whether the process is a helper that must not be killed yet."""
        if self._is_over():
            return False
        ignored = 0
        try:
            with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
                for line in file:
                    if line.startswith(("SigBlk", "SigIgn")):
                        ignored |= int(line.split(":")[1], 16)
        except OSError:  # gone, hidden from us, or no descriptor is free
            return False
        if ignored & _POLITE != _POLITE:
            return False
        if self._since is None:
            self._since = monotonic()
        if pid not in self._spared:
            self._spared[pid] = starved.look(pid)
        return True

    def _is_over(self) -> bool:
        if self._since is None:
            return False
        passed = monotonic() - self._since
        if passed - self._lost >= GRACE:  # only then: the look takes some time
            lost = (
                starved.lost(before, starved.look(pid), passed)
                for pid, before in self._spared.items()
            )
            self._lost = min(STARVED, max(self._lost, *lost))
        return passed - self._lost >= GRACE

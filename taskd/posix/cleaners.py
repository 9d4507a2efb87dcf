"""Processes that clean up once those whom they serve are gone: they are let be for a moment.

multiprocessing's resource tracker (and joblib's, which is made like it) unlinks shared memory and
semaphores when the last process that holds its pipe has ended. Killed along with the rest of a
tree, it leaves them in /dev/shm until the machine is restarted. It is known by what it does to
outlive whom it serves: it ignores, or blocks, both SIGINT and SIGTERM.

Used in every process that kills. Invariant: all those in one tree that is being ended are let be
for GRACE together, counted from when the first was found. What only looks like a helper gains no
more by it, in whatever number, nor by leaving a successor each time.
"""

from __future__ import annotations

import signal
from time import monotonic, sleep

GRACE = 1.0
"""Seconds."""

_PAUSE = 0.005

_POLITE = 1 << (signal.SIGINT - 1) | 1 << (signal.SIGTERM - 1)


class Patience:
    """With the helpers in one tree, from the first look at what is left of it to the last."""

    def __init__(self) -> None:
        self._until: float | None = None

    def lets_be(self, pid: int) -> bool:
        """Whether it must not be killed yet."""
        now = monotonic()
        if self._until is not None and now >= self._until:
            return False
        try:
            if not _is_helper(pid):
                return False
        except OSError:  # gone, hidden from us, or no descriptor is free
            return False
        if self._until is None:
            self._until = now + GRACE
        return True


def _is_helper(pid: int) -> bool:
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        lines = (line.split(":") for line in file if line.startswith(("SigBlk", "SigIgn")))
        deaf = 0
        for _, numbers in lines:
            deaf |= int(numbers, 16)
    return deaf & _POLITE == _POLITE


def rest() -> None:
    """Between two looks at whether one has ended."""
    sleep(_PAUSE)

"""Processes that clean up once those whom they serve are gone: they are let be for a moment.

multiprocessing's resource tracker (and joblib's, which is made like it) unlinks shared memory and
semaphores when the last process that holds its pipe has ended. Killed along with the rest of a
tree, it leaves them in /dev/shm until the machine is restarted. It is known by what it does to
outlive whom it serves: it ignores, or blocks, both SIGINT and SIGTERM.

Used in every process that kills. Invariant: nobody is let be for longer than GRACE, counted from
when it was first found; whatever else does likewise costs as much time and no more.
"""

from __future__ import annotations

import signal
from time import monotonic, sleep

from taskd.posix import process

GRACE = 1.0
"""Seconds."""

_PAUSE = 0.005

_POLITE = 1 << (signal.SIGINT - 1) | 1 << (signal.SIGTERM - 1)

_KEPT = 100
"""Deadlines that are remembered; those that passed longest ago go first."""

_until: dict[tuple[int, int | None], float] = {}


def is_let_be(pid: int) -> bool:
    """Whether it must not be killed yet."""
    try:
        if not _is_helper(pid):
            return False
        who = pid, process.start_time(pid)
    except OSError:  # gone, hidden from us, or no descriptor is free
        return False
    while len(_until) > _KEPT:
        del _until[next(iter(_until))]
    now = monotonic()
    return now < _until.setdefault(who, now + GRACE)


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

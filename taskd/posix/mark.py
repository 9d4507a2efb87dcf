"""A mark that every process inherits from its worker, over fork, exec and setsid.

The processes that a dead worker left are found by parentage while its zygote or the master lives.
If all three are killed at once, these processes get another parent, may be in a session of their
own, and nothing else tells where they came from. A resource limit stays: RLIMIT_LOCKS has had no
effect since Linux 2.4.25, any process may lower it and none can raise it again, and
/proc/PID/limits shows it. The worker sets it to a random number at its start.

Source: getrlimit(2), proc(5). Only a process that lowers the limit itself loses the mark.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal

from taskd.posix import process
from taskd.posix.cleaners import Patience

_RLIMIT_LOCKS = 10
_TITLE = "Max file locks"
_HIGHEST = 1 << 62


def wear(worker: bytes) -> int:
    """Mark this process and its later descendants; returns the mark, 0 if that was not possible.

    ``worker``: random bytes. If a limit is set already (a daemon within a task of another daemon),
    the mark is a random number below it.
    """
    _, highest = resource.getrlimit(_RLIMIT_LOCKS)
    limit = _HIGHEST if highest in (resource.RLIM_INFINITY, -1) else min(highest, _HIGHEST)
    if limit < 1 << 20:
        return 0  # too few numbers to tell workers apart
    mark = limit // 2 + int.from_bytes(worker[:8], "big") % (limit // 2)
    resource.setrlimit(_RLIMIT_LOCKS, (mark, mark))
    return mark


def kill_wearers(mark: int, patience: Patience | None = None) -> bool:
    """SIGKILL to every process with ``mark``. True if there was one, zombies not counted. Raises
    OSError if they cannot be searched for (out of descriptors). ``patience``: see ``tree``."""
    if not mark:
        return False
    found = False
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid() and _worn(name) == mark:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if not process.is_zombie(int(name)):
                    if not (patience and patience.lets_be(int(name))):
                        os.kill(int(name), signal.SIGKILL)
                    found = True
    return found


def _worn(pid: str) -> int | None:
    """The hard limit of that process; None: it is gone, hidden from us, or has no limit."""
    try:
        with open(f"/proc/{pid}/limits", encoding="ascii") as file:
            line = next((line for line in file if line.startswith(_TITLE)), "")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    words = line.removeprefix(_TITLE).split()
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else None

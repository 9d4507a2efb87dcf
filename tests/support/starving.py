"""Keeping a CPU from a process that asked for the least of it: a busy machine, made at will.

``LAST`` is code for that process: it is on one CPU alone from then on, behind all others there.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

CPU = min(os.sched_getaffinity(0))

LAST = f"""
import os
if os.getsid(0) == os.getpid() and os.path.exists("/proc/self/autogroup"):
    # Sessions have turns of their own, whatever is in them.
    with open("/proc/self/autogroup", "w") as file:
        file.write("19")
os.sched_setaffinity(0, {{{CPU}}})
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
"""

_HOG = f"""
import os
os.sched_setaffinity(0, {{{{{CPU}}}}})
print(flush=True)
while os.getppid() == {{parent}}:
    sum(range(10_000))
"""


def calm(pid: int) -> None:
    """It is like any other process from now on."""
    if os.getsid(pid) == pid and os.path.exists(f"/proc/{pid}/autogroup"):
        with open(f"/proc/{pid}/autogroup", "w", encoding="ascii") as file:
            file.write("0")
    os.sched_setaffinity(pid, os.sched_getaffinity(0))
    os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0))


@contextmanager
def hogged() -> Iterator[None]:
    """Something else computes on that CPU during the block, for as long as this process lives."""
    code = _HOG.format(parent=os.getpid())
    hog = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert hog.stdout is not None
        hog.stdout.readline()
        yield
    finally:
        hog.kill()
        hog.communicate()

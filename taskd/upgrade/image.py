"""Replacing this process's image in place: the few system calls at the heart of a deploy.

Same pid, same children, same descriptors. From ``hold_signals`` to the new master's
``let_signals_through`` no signal is acted on: caught ones fall back to their default at exec,
which for a stray SIGHUP would be death. SIGALRM alone is left unblocked. In the old image it ends
a step of the deploy that hangs (``limited``); from ``arm`` on it is at its default and ends the
process: a new image that hangs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator

from taskd.posix import starved, title
from taskd.revision import release
from taskd.upgrade import steps

HANG_LIMIT = 20.0
"""Seconds the new image has from exec to confirmation before the kernel kills it, and as many again
until it serves."""


LEAST = 0.1
"""Seconds without a CPU that do not put a deadline off."""


class Overdue(Exception):
    """What ``limited`` allowed is over."""


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise Overdue in the body, wherever it is, once ``seconds`` have passed, the time that we
    waited for a CPU not counted. Main thread alone.

    Not within itself, and not once ``arm`` was called. A body that is in a system call that cannot
    be interrupted (a dead disk) is not ended by it: that is for the service manager's watchdog.
    """

    since, before = time.monotonic(), starved.look(os.getpid())

    def overdue(*_: object) -> None:
        nonlocal since, before
        at, now = time.monotonic(), starved.look(os.getpid())
        lost, since, before = starved.lost(before, now, at - since), at, now
        if lost > LEAST:
            signal.setitimer(signal.ITIMER_REAL, lost)
            return
        raise Overdue(f"not done after {seconds:g} s")

    signal.signal(signal.SIGALRM, overdue)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        disarm()


def hold_signals() -> None:
    """Block every signal but SIGALRM in this thread; every other thread blocks them all."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - {signal.SIGALRM})


def let_signals_through() -> None:
    """Unblock all; what came meanwhile is delivered now."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def arm() -> None:
    """From now on the kernel kills this process, whatever its image, unless ``disarm`` comes."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
    signal.setitimer(signal.ITIMER_REAL, HANG_LIMIT)


def disarm() -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)


def replace(python: str, snapshot: int) -> None:
    """Become the image that ``python`` starts. Returns only by raising OSError."""
    os.execv(python, command(python, snapshot))


def command(python: str, snapshot: int) -> list[str]:
    """What that image is started with; also in a trial of it."""
    before = release.settled(sys.executable)
    return [python, "-P", *title.ROOM_IN_PYTHON, "-m", steps.TAKEOVER, str(snapshot), before]

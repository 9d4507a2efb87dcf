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
"""Seconds without a CPU, up to which a deadline is not extended."""


class Overdue(Exception):
    """The time that ``limited`` allows is over."""


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise Overdue in the body once ``seconds`` have passed, not counting the time that this
    process waited for a CPU. For the main thread only; not nested, and not after ``arm``.

    It cannot end a body that is in an uninterruptible system call (a dead disk): the service
    manager's watchdog does that.
    """

    since, before, left = time.monotonic(), starved.look(os.getpid()), seconds

    def overdue(*_: object) -> None:
        nonlocal since, before, left
        at, now = time.monotonic(), starved.look(os.getpid())
        lost = starved.lost(before, now, at - since)
        left -= at - since - lost
        since, before = at, now
        if min(left, lost) > LEAST:
            signal.setitimer(signal.ITIMER_REAL, left)
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
    """Unblock all signals; those that came meanwhile are delivered now."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def arm() -> None:
    """The kernel kills this process after HANG_LIMIT, in whichever image, unless ``disarm`` is
    called before."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
    signal.setitimer(signal.ITIMER_REAL, HANG_LIMIT)


def disarm() -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)


def command(python: str, snapshot: int) -> list[str]:
    """The arguments of the exec that starts the new image with ``python``; also of its trial.
    ``snapshot``: its descriptor."""
    before = release.settled(sys.executable)
    return [python, "-P", *title.ROOM_IN_PYTHON, "-m", steps.TAKEOVER, str(snapshot), before]

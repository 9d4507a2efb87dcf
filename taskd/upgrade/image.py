"""Replacing this process's image in place: the few system calls at the heart of a deploy.

Same pid, same children, same descriptors. From ``hold_signals`` to the new master's
``let_signals_through`` no signal is acted on: caught ones fall back to their default at exec,
which for a stray SIGHUP would be death. An interval timer ends a new image that hangs: SIGALRM
alone is left unblocked and at its default.
"""

from __future__ import annotations

import os
import signal
import sys

from taskd.upgrade import steps

HANG_LIMIT = 20.0
"""Seconds the new image has from exec to confirmation before the kernel kills it."""


def hold_signals() -> None:
    """Block every signal in this thread; no other thread may be running."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def let_signals_through() -> None:
    """Unblock all; what came meanwhile is delivered now."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def arm() -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
    signal.setitimer(signal.ITIMER_REAL, HANG_LIMIT)


def disarm() -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)


def replace(python: str, snapshot: int) -> None:
    """Become the image that ``python`` starts. Returns only by raising OSError."""
    words = [python, "-P", "-m", steps.TAKEOVER, str(snapshot), sys.executable]
    os.execv(python, words)

"""The end of a worker: what Python does at the end of a program, within a bound.

Error reporters, log handlers and finalisers keep what they have for the end of their process. A
worker that goes (retired, not to be used again, or without a master) runs them: threads that are no
daemons are waited for, then exit handlers run, those from the app's import too: each worker has its
own copy of what the import made. No task is concerned any more: the last one's end stands in the
slot, and its log is closed, so that what handlers print is in the daemon's log.

Invariant: this ends, whatever the handlers do: the kernel kills the process at its last moment.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from contextlib import suppress
from typing import Any, NoReturn

from taskd.posix import deadline, libc, native
from taskd.worker import output

WITHIN = 5.0
"""Seconds that all of it may take."""

EXEC_WITHIN = WITHIN + 1.0
"""Seconds until what a handler has put into this process's place by an exec is ended."""

THREADS_WITHIN = 2.0
"""Seconds of them in which threads may end; then the exit handlers run beside those that go on."""


def run_handlers() -> None:
    """What the end of a Python program does, up to the process's own end. Never raises. Without the
    kernel's timer nothing is run: there is no end without a bound."""
    with suppress(BaseException):  # of a signal handler, say
        if _end_in_time():
            _disown_children()
            _end_threads()
            atexit._run_exitfuncs()
            output.flush()
            libc.flush_all()


def _end_in_time() -> bool:
    """The kernel's timer goes with an exec; an alarm stays, and its handlers go."""
    native.handle_signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
    signal.setitimer(signal.ITIMER_REAL, EXEC_WITHIN)
    return deadline.die_in(WITHIN)


def leave() -> NoReturn:
    """Run the exit handlers, and end this process."""
    try:
        run_handlers()
    finally:
        output.leave(0)


def _disown_children() -> None:
    """The app's own processes of multiprocessing are the zygote's: its handler would end them."""
    children = getattr(sys.modules.get("multiprocessing.process"), "_children", None)
    if isinstance(children, set):
        for child in list(children):
            if getattr(child, "_parent_pid", None) != os.getpid():
                children.discard(child)


def _end_threads() -> None:
    """As Python does it: executors end theirs, and those that are no daemons are waited for. In a
    thread of its own, since it knows no limit of time."""
    over = native.allocate_lock()
    over.acquire()

    def end() -> None:
        try:
            shutdown: Any = threading._shutdown  # type: ignore[attr-defined]
            shutdown()
        finally:
            over.release()

    with suppress(RuntimeError):  # no thread is to be had
        native.start_new_thread(end, ())
        over.acquire(True, THREADS_WITHIN)

"""The end of a worker: runs what Python runs at the end of a program, within a time limit.

Error reporters, log handlers and finalisers write what they have buffered at the end of their
process. A worker that ends (retired, not to be used again, or without a master) runs them: it waits
for threads that are no daemon threads, then runs the exit handlers, also those from the app's
import, since each worker has its own copy of what the import made. No task is concerned: the last
one's END is in the slot, and its log is closed, so what handlers print is in the daemon's log.

Before them it runs the app's ``on_worker_stop``, which have a time of their own (``hooks``).

Invariant: the process ends, whatever all of these do: the kernel kills it at the limit.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from contextlib import suppress
from typing import NoReturn

from taskd.posix import kill_timer, libc, native
from taskd.worker import hooks, output

WITHIN = 5.0
"""Seconds that the handlers and threads may take in all."""

EXEC_WITHIN = WITHIN + 1.0
"""Seconds after which a program that a handler has started by exec in this process is ended."""

THREADS_WITHIN = 2.0
"""Seconds to wait for threads; then the exit handlers run although some threads go on."""


def run_handlers() -> None:
    """Run ``on_worker_stop``, then what Python runs at the end of a program, within WITHIN. Never
    raises. Without the kernel's timer nothing is run, since the end would have no bound."""
    with suppress(BaseException):
        if hooks.any_at_stop() and kill_timer.die_in(hooks.STOP_WITHIN + WITHIN):
            hooks.worker_stops()
    with suppress(BaseException):  # raised by a signal handler, for example
        # An exec ends the kernel's timer. It keeps an alarm, and resets the alarm's handler.
        native.handle_signal(signal.SIGALRM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
        signal.setitimer(signal.ITIMER_REAL, EXEC_WITHIN)
        if kill_timer.die_in(WITHIN):
            _disown_children()
            _end_threads()
            atexit._run_exitfuncs()
            output.flush()
            libc.fflush(None)  # of all files; may wait for a thread that reads from one


def leave() -> NoReturn:
    """Run the exit handlers, and end this process."""
    try:
        run_handlers()
    finally:
        output.leave(0)


def _disown_children() -> None:
    """Have multiprocessing's exit handler leave the processes alone that the app started at import:
    they are the zygote's children."""
    children = getattr(sys.modules.get("multiprocessing.process"), "_children", None)
    if isinstance(children, set):
        for child in list(children):
            if getattr(child, "_parent_pid", None) != os.getpid():
                children.discard(child)


def _end_threads() -> None:
    """End executors' threads and wait for those that are no daemon threads, as Python does at exit.
    In a thread of its own, since Python's function has no time limit."""
    over = native.allocate_lock()
    over.acquire()

    def end() -> None:
        try:
            threading._shutdown()  # type: ignore[attr-defined]
        finally:
            over.release()

    with suppress(RuntimeError):  # no thread can be started
        native.start_new_thread(end, ())
        over.acquire(True, THREADS_WITHIN)

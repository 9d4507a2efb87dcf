"""Runs the app's hooks (``api.hooks``) in a worker, and in tests, within a time limit.

Invariant: a hook changes no outcome. Whatever it raises is told on stderr (the task's log, or the
daemon's for hooks of the worker) and goes no further; one that is not done in time is interrupted
by an exception, and the others of its event are passed over. ``on_task_end`` is run once the
attempt's END is kept, so that even a process that dies in it changes nothing.

Where Django is loaded, its connections that are too old or broken are closed before and after each
task, as Django itself does around requests.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from taskd.api import checks, hooks
from taskd.api.hooks import TaskEnd, TaskInfo
from taskd.posix import native
from taskd.protocol.secret import found_in, hide
from taskd.worker import output
from taskd.worker.failure import describe, name_of

WITHIN = 10.0
"""Seconds for all hooks of one event."""

STOP_WITHIN = 5.0
"""Seconds for all ``on_worker_stop`` of a worker."""

_AGAIN = 1.0
"""Seconds until a hook that has caught the interruption is interrupted again."""


class _OverdueError(BaseException):
    """Interrupts a hook; no ``except Exception`` catches it."""


def worker_starts() -> None:
    _run(hooks.WORKER_START, (), WITHIN)


def worker_stops() -> None:
    _run(hooks.WORKER_STOP, (), STOP_WITHIN)


def any_at_stop() -> bool:
    return bool(hooks.registered[hooks.WORKER_STOP])


class AroundTask:
    """The hooks around one attempt. ``is_due``: it has begun, and something runs at its end.
    ``threads``: how many its hooks have started and left, as reporters do: they are not the task's.
    """

    is_due = False
    threads = 0

    def __init__(self, task: str, name: str, attempt: int, revision: str) -> None:
        self._info = TaskInfo(task, name, attempt, revision, {})
        self._began = 0.0

    def begin(self, args: Mapping[str, Any]) -> None:
        """Right before the task's function is called with ``args``. Never raises."""
        self._info = self._info._replace(args=args)
        self._began = time.monotonic()
        self.is_due = bool(hooks.registered[hooks.TASK_END]) or _django() is not None
        self._run(hooks.TASK_START, (self._info,))

    def end(self, outcome: str, exception: BaseException | None) -> None:
        """Once the end is kept. Never raises."""
        told = TaskEnd(outcome, exception, time.monotonic() - self._began)
        self._run(hooks.TASK_END, (self._info, told))

    def _run(self, event: str, arguments: tuple[Any, ...]) -> None:
        before = threading.active_count()
        _run(event, arguments, WITHIN)
        self.threads += max(0, threading.active_count() - before)


def _run(event: str, arguments: tuple[Any, ...], within: float) -> None:
    """Call the hooks of the event. Never raises, and returns in this process alone."""
    called = [
        (f"{event} ({checks.place(hook)})", hook, arguments) for hook in hooks.registered[event]
    ]
    if event in (hooks.TASK_START, hooks.TASK_END) and (django := _django()) is not None:
        # The app's hooks use connections that are sound, and what they have used is looked at too.
        place = 0 if event == hooks.TASK_START else len(called)
        called.insert(place, ("close_old_connections", django.close_old_connections, ()))
    if not called:
        return
    pid, running = os.getpid(), event
    try:
        with _interrupted_after(within):
            for running, hook, given in called:
                _guarded(pid, running, hook, given)
    except _OverdueError:
        _say(f"{running} was not done after {within:g} s, and was interrupted")
    except BaseException as error:  # raised by a signal handler that a hook has set, for example
        _say(f"{running} was ended by {name_of(error)}")
    output.leave_if_child(pid)


def _guarded(pid: int, what: str, hook: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        checks.is_async(hook(*arguments))
    except _OverdueError:
        output.leave_if_child(pid)
        raise
    except BaseException as error:  # the boundary to user code: all of it is reported
        output.leave_if_child(pid)
        secrets = found_in([dict(each.args) for each in arguments if type(each) is TaskInfo])
        told = describe(error, lambda text: hide(text, secrets))
        _say(f"{what} failed: it changes nothing for the task\n{told['traceback']}")
    output.leave_if_child(pid)


def _say(text: str) -> None:
    output.flush()
    with suppress(OSError):
        os.write(2, f"taskd: {text.rstrip()}\n".encode(errors="backslashreplace"))


@contextmanager
def _interrupted_after(seconds: float) -> Iterator[None]:
    """Raise _OverdueError in the block after ``seconds``. Without a limit where there is none to be
    had: outside of the main thread, and where the timer is in use (by a test's own deadline)."""
    if threading.current_thread() is not threading.main_thread() or any(_timer()):
        yield
        return
    is_on = True

    def ring(*_: object) -> None:
        if is_on:
            raise _OverdueError

    former = native.getsignal(signal.SIGALRM)
    native.handle_signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN)
    try:
        try:
            yield
        finally:
            is_on = False
    finally:  # the timer may have rung before that line; it does not ring twice in between
        is_on = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        native.handle_signal(signal.SIGALRM, signal.SIG_DFL if former is None else former)


def _timer() -> tuple[float, float]:
    return signal.getitimer(signal.ITIMER_REAL)


def _django() -> Any:
    """``django.db``, if the app has loaded and configured it."""
    found = sys.modules.get("django.db")
    settings = getattr(sys.modules.get("django.conf"), "settings", None)
    is_ready = found is not None and getattr(settings, "configured", False)
    return found if is_ready else None

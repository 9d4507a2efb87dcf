"""One attempt of one task: call its function, and say how that ended.

Runs in a worker's main thread, and in tests. Whatever the task's code does (raise, exit, fork and
return), this returns exactly one ``Ending`` in the process that called it, and nothing in others.

Invariant: an object of the app's is asked nothing that could run its code, but within a guard that
makes the task's failure of what that raises. So ``issubclass(type(x), …)`` stands here in place of
``isinstance``, which asks an object's ``__class__``, and loops in place of recursion.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from math import isfinite
from types import CoroutineType
from typing import TYPE_CHECKING, Any, final

from taskd.api.async_context import AsyncContext
from taskd.api.context import Base, Context, running
from taskd.api.interrupt import Held, Interrupted, Sleeping, Yielded
from taskd.api.journal import Journal
from taskd.api.recorder import Recorder
from taskd.api.source import REMEDY
from taskd.errors import NotPlainData
from taskd.protocol import data
from taskd.protocol.saved import Outcome, Saved
from taskd.protocol.secret import found_in, hide
from taskd.record import Record
from taskd.worker import output
from taskd.worker.eventloop import EventLoop
from taskd.worker.failure import bounded, describe, name_of, text_of
from taskd.worker.migrate import Unfit, fit

if TYPE_CHECKING:
    from taskd.tasks import Task


_STRIKES = 100
"""Times that what a task has left may keep it from being calmed; then it strikes where it likes."""


class Ending(Record):
    """How an attempt ended.

    ``result``: in plain-data encoding, if it succeeded. ``error``: {type, message, traceback}, if
    it failed. ``reason``: why it left, is cancelled or held, in words. ``wake``: Unix seconds, if
    it sleeps. ``progressed``: it wrote something new. ``saved``: what the next attempt begins
    with: where nothing new was written, what this one began with, as it was before migrations.
    ``exception``: what the task raised, for tests. ``unfit``: the code cannot take what was
    submitted and saved, and has not begun; another revision's may.
    """

    outcome: Outcome
    saved: Saved
    progressed: bool = False
    result: bytes | None = None
    error: dict[str, str] | None = None
    reason: str | None = None
    wake: float | None = None
    exception: BaseException | None = None
    unfit: bool = False


def run_attempt(
    task: Task[..., Any],
    args: Mapping[str, Any],
    saved: Saved | None,
    recorder: Recorder,
    *,
    submitted_at: int | None = None,
    clock: Callable[[], float] = time.time,
    on_item: Callable[[str, Any], None] | None = None,
    calm: Callable[[], None] = lambda: None,
    loop: EventLoop | None = None,
) -> Ending:
    """Run ``task`` from where ``saved`` leaves off (which is this attempt's own from here on).

    ``submitted_at``: the task's version then (None: the code's own). Older state is migrated.
    ``calm`` is called as soon as the task's function is over, and puts an end to what it left that
    may strike at any moment. ``loop``: of async tasks; None: one for this attempt alone.
    """
    before = Saved(task.version) if saved is None else saved
    try:
        start = fit(task, args, saved, submitted_at)
    except Unfit as error:
        return unfit(before, str(error))
    journal = Journal(start.saved, start.rebase)
    kind: type[Base] = AsyncContext if task.is_async else Context
    context = kind(journal, recorder, clock, on_item)
    if loop is None:
        with closing(EventLoop()) as own:
            end = _call(task, context, start.args, calm, own)
    else:
        end = _call(task, context, start.args, calm, loop)
    if isinstance(context._ended, Held):
        end = context._ended  # also if the task's code caught it: what it did then proves nothing
    ending = _judge(task, end, journal, recorder, start.args)
    return ending if ending.progressed else ending._replace(saved=before)


def _judge(
    task: Task[..., Any],
    end: _Returned | BaseException,
    journal: Journal,
    recorder: Recorder,
    args: Mapping[str, Any],
) -> Ending:
    """The ending that ``end`` makes. What goes wrong in that is the task's failure."""
    try:
        ending = _finish(task, end, journal, recorder)
        return _without_secrets(ending, [dict(args), journal.state], journal.saved)
    except BaseException as error:  # of an object of the app's: see the invariant
        # Nothing is known to be free of secrets now: no text of theirs is shown.
        wrong = RuntimeError(f"how the task ended cannot be told: that raised {name_of(error)}")
        failed = _failed(wrong, Ending(Outcome.FAILED, journal.saved, journal.moves > 0))
        return failed._replace(error=describe(wrong))


def _without_secrets(ending: Ending, given: list[Any], saved: Saved) -> Ending:
    """With what others are shown of it: a task may put what it revealed into an error's text."""
    exception, reason = ending.exception, ending.reason
    if exception is None and reason is None:
        return ending
    cursors = [mark.cursor for mark in saved.cursors.values()]
    secrets = found_in([*given, saved.args, saved.state, saved.steps, cursors])
    error = None if exception is None else describe(exception, lambda text: hide(text, secrets))
    reason = None if reason is None else bounded(hide(reason, secrets))
    return ending._replace(error=error, reason=reason)


def unfit(saved: Saved, why: str) -> Ending:
    """The code here cannot take what was submitted and saved; nothing of the task has run."""
    return Ending(Outcome.HELD, saved, reason=f"{why}. {REMEDY}", unfit=True)


def left(interrupt: Interrupted, recorder: Recorder, version: int) -> Ending:
    """The attempt ended before any of the task's code has run."""
    return _interrupted(interrupt, Ending(Outcome.LEFT, Saved(version)), recorder)


@final
class _Returned(Record):
    value: Any


def _call(
    task: Task[..., Any],
    context: Base,
    args: Mapping[str, Any],
    calm: Callable[[], None],
    loop: EventLoop,
) -> _Returned | BaseException:
    """What the function returns, or the exception it ends by: the first counts. What strikes after
    it (a signal handler that the task has set, by a timer that it left) changes nothing."""
    pid = os.getpid()
    ends: list[_Returned | BaseException] = []
    while True:
        try:
            if not ends:
                _run(task, context, args, pid, ends, loop)
            calm()
            return ends[0]
        except BaseException as exception:  # the boundary to user code: all of it is reported
            _leave_child(pid, exception)
            ends.append(exception)
            if len(ends) > _STRIKES:
                return ends[0]


def _run(
    task: Task[..., Any],
    context: Base,
    args: Mapping[str, Any],
    pid: int,
    ends: list[_Returned | BaseException],
    loop: EventLoop,
) -> None:
    """Call the function, and put into ``ends`` what it returns. Raises whatever it raises."""
    first = (context,) if task.takes_context else ()
    with running(context):
        if task.is_async:
            try:
                loop.run(_awaited(task, first, args, pid, ends))
            except BaseException as exception:
                # Before the function is cancelled: what it makes of that is not how it ended.
                _leave_child(pid, exception)
                ends.append(exception)
            loop.calm()
        else:
            value = task.fn(*first, **args)
            _leave_child(pid)
            ends.append(_Returned(value))


async def _awaited(
    task: Task[..., Any],
    first: tuple[Any, ...],
    args: Mapping[str, Any],
    pid: int,
    ends: list[_Returned | BaseException],
) -> None:
    """Look for a child before the event loop is closed: its epoll belongs to the parent as well.

    How it ended goes past asyncio, into ``ends``: asyncio writes what it is given into texts, and
    trips over what has none. A cancellation is its own business.
    """
    try:
        value = await task.fn(*first, **args)
    except BaseException as exception:
        _leave_child(pid, exception)
        if issubclass(type(exception), asyncio.CancelledError):
            raise
        ends.append(exception)
    else:
        _leave_child(pid)
        ends.append(_Returned(value))


def _leave_child(pid: int, exception: BaseException | None = None) -> None:
    """A child that the task's code forked must not go on as a second worker."""
    if os.getpid() == pid:
        return
    status = 0 if exception is None else 1
    try:
        if issubclass(type(exception), SystemExit):
            code = exception.code  # type: ignore[union-attr]
            status = code & 0xFF if type(code) is int else int(code is not None)
    finally:
        output.leave(status)


def _finish(
    task: Task[..., Any], end: _Returned | BaseException, journal: Journal, recorder: Recorder
) -> Ending:
    ending = Ending(Outcome.SUCCEEDED, journal.saved, journal.moves > 0)
    if type(end) is _Returned:
        return _returned(task, end.value, ending)
    interrupt = _interrupt_in(end)
    if interrupt is None:
        return _failed(end, ending)
    return _interrupted(interrupt, ending, recorder)


def _returned(task: Task[..., Any], value: Any, ending: Ending) -> Ending:
    try:
        if type(value) is CoroutineType:
            value.close()
            raise NotPlainData(
                f"task '{task.name}' returned a coroutine: its function must be async def itself"
            )
        raw = data.encode(value, f"the result of task '{task.name}'", data.RESULT_LIMIT)
    except NotPlainData as error:
        return _failed(error, ending)
    return ending._replace(result=raw)


def _failed(exception: BaseException, ending: Ending) -> Ending:
    return ending._replace(outcome=Outcome.FAILED, exception=exception)


def _interrupt_in(exception: BaseException) -> Interrupted | None:
    """The Interrupted that ended the task, which asyncio's task groups wrap into a group. None if
    anything else is in there as well."""
    found: list[Interrupted] = []
    waiting = [exception]
    while waiting:
        each: Any = waiting.pop()
        if issubclass(type(each), Interrupted):
            found.append(each)
        elif issubclass(type(each), BaseExceptionGroup):
            waiting += _MEMBERS.__get__(each)
        else:
            return None
    return found[-1] if found else None


_MEMBERS: Any = BaseExceptionGroup.exceptions
"""The attribute itself: a class of the app's may have another of that name."""


def _interrupted(interrupt: Interrupted, ending: Ending, recorder: Recorder) -> Ending:
    """A wish goes before what the task does by itself, but for a hold, which must be seen."""
    kind = type(interrupt)
    if issubclass(kind, Held):
        return ending._replace(outcome=Outcome.HELD, reason=text_of(interrupt.why))
    wish = recorder.wish()
    if wish is not None:
        outcome = Outcome.CANCELLED if wish.kind == "cancel" else Outcome.LEFT
        return ending._replace(outcome=outcome, reason=wish.why)
    if issubclass(kind, Sleeping):
        return ending._replace(outcome=Outcome.SLEEPING, reason="sleeping", wake=_time(interrupt))
    if issubclass(kind, Yielded):
        return ending._replace(outcome=Outcome.YIELDED, reason=text_of(interrupt.why))
    return _failed(interrupt, ending)  # the task's code raised it by itself


def _time(interrupt: Any) -> float:
    """When it wakes. Raises ValueError for what is no time."""
    wake = float(interrupt.wake)
    if not isfinite(wake):
        raise ValueError(wake)
    return wake

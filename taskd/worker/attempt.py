"""Runs one attempt of one task: calls its function, and returns how that ended.

Runs in a worker's main thread, and in tests. Whatever the task's code does (raise, exit, fork and
return), ``run_attempt`` returns exactly one ``Ending`` in the process that called it, and never
returns in another one.

Invariant: code of an app's object runs only inside a guard, which turns what it raises into the
task's failure. Hence ``issubclass(type(x), …)`` in place of ``isinstance``, which reads an object's
``__class__``, and loops in place of recursion.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing, nullcontext
from math import isfinite
from types import CoroutineType
from typing import TYPE_CHECKING, Any, final

from taskd.api.async_context import AsyncContext
from taskd.api.context import Base, Context, running
from taskd.api.interrupt import Held, Interrupted, Sleeping, TimedOut, Yielded
from taskd.api.journal import Journal
from taskd.api.own_ends import Cancel, OwnEnd, Retry
from taskd.api.recorder import Recorder
from taskd.api.source import REMEDY
from taskd.errors import NotPlainData
from taskd.protocol import data
from taskd.protocol.saved import Outcome, Saved
from taskd.protocol.secret import found_in, hide
from taskd.record import Record
from taskd.worker import output
from taskd.worker.eventloop import EventLoop
from taskd.worker.failed import after_failure
from taskd.worker.failure import bounded, describe, name_of, plain
from taskd.worker.migrate import Unfit, fit

if TYPE_CHECKING:
    from taskd.tasks import Task


_STRIKES = 100
"""Exceptions of the task's signal handlers that are caught after its end, before giving up."""


class Ending(Record):
    """How an attempt ended.

    ``result``: in plain-data encoding, if it succeeded. ``error``: {type, message, traceback}, if
    it failed. ``reason``: why it left, is cancelled or held, in words. ``wake``: Unix seconds, if
    it sleeps. ``progressed``: it wrote a record. ``saved``: the state that the next attempt begins
    with; if no record was written, the state before migrations that this one began with.
    ``retry``: what is to follow a failure, as END has it. ``exception``: what the task raised, for
    tests. ``unfit``: the code cannot run with the
    arguments and saved state, and has not begun; another revision's code may.
    """

    outcome: Outcome
    saved: Saved
    progressed: bool = False
    result: bytes | None = None
    error: dict[str, str] | None = None
    reason: str | None = None
    wake: float | None = None
    retry: dict[str, Any] | None = None
    exception: BaseException | None = None
    unfit: bool = False


def run_attempt(
    task: Task[..., Any],
    args: Mapping[str, Any],
    saved: Saved | None,
    recorder: Recorder,
    *,
    submitted_at: int | None = None,
    failures: int | None = None,
    clock: Callable[[], float] = time.time,
    on_item: Callable[[str, Any], None] | None = None,
    begin: Callable[[Mapping[str, Any]], None] = lambda args: None,
    calm: Callable[[], None] = lambda: None,
    loop: EventLoop | None = None,
) -> Ending:
    """Run ``task`` from the state ``saved``, which this attempt changes from here on.

    ``submitted_at``: the task's version at submission (None: the code's own). Older state is
    migrated. ``failures``: how many were counted before (None: not known). ``begin`` is called
    with the arguments right before the task's function, and never raises. ``calm`` is called as
    soon as the function has ended; it stops the timers and signal handlers that the task has left.
    ``loop``: of async tasks; None: one for this attempt.
    """
    before = Saved(task.version) if saved is None else saved
    try:
        start = fit(task, args, saved, submitted_at)
    except Unfit as error:
        return unfit(before, str(error))
    journal = Journal(start.saved, start.rebase)
    kind: type[Base] = AsyncContext if task.is_async else Context
    context = kind(journal, recorder, clock, on_item)
    with closing(EventLoop()) if loop is None else nullcontext(loop) as used:
        begin(start.args)
        end = _call(task, context, start.args, calm, used)
    if (around := sys.exc_info()[1]) is not None:
        _set_apart(end, around)
    if isinstance(context._ended, Held):
        end = context._ended  # also if the task's code caught it and went on
    ending = _judge(task, end, journal, recorder, start.args, failures, clock)
    return ending if ending.progressed else ending._replace(saved=before)


def _set_apart(end: _Returned | BaseException, around: BaseException) -> None:
    """Take out of what the task raised the exception that its caller was handling: in a test, whose
    code submits the task in an ``except`` block, that is no part of the task's story."""
    at: Any = end
    seen: set[int] = set()
    while issubclass(type(at), BaseException) and id(at) not in seen:
        seen.add(id(at))
        if (context := _CONTEXT.__get__(at)) is around:
            _CONTEXT.__set__(at, None)
        at = context


_CONTEXT: Any = vars(BaseException)["__context__"]
"""The attribute itself: a class of the app's may have another of that name."""


def _judge(
    task: Task[..., Any],
    end: _Returned | BaseException,
    journal: Journal,
    recorder: Recorder,
    args: Mapping[str, Any],
    failures: int | None,
    clock: Callable[[], float],
) -> Ending:
    """The Ending for ``end``, with its error and reason as others may see them: a task may put a
    revealed secret into an error's text. An exception raised on the way is the task's failure."""
    saved = journal.saved
    try:
        ending = _finish(task, end, journal, recorder, clock)
        exception, reason = ending.exception, ending.reason
        if exception is None and reason is None:
            return ending
        cursors = [mark.cursor for mark in saved.cursors.values()]
        secrets = found_in(
            [dict(args), journal.state, saved.args, saved.state, saved.steps, cursors]
        )

        def shown(text: str) -> str:
            return hide(text, secrets)

        error = retry = None
        if exception is not None:
            told = after_failure(task.rules, exception, failures)
            retry = {
                name: bounded(shown(value)) if type(value) is str else value
                for name, value in told.items()
            }
            if issubclass(type(exception), OwnEnd):
                exception = exception.error  # type: ignore[attr-defined]
            error = describe(exception, shown)
        return ending._replace(
            error=error,
            reason=None if reason is None else bounded(shown(reason)),
            retry=retry,
            exception=exception,
        )
    except BaseException as raised:  # of an object of the app's: see the invariant
        # No text of the app's is shown: it may contain a secret.
        wrong = RuntimeError(f"how the task ended cannot be told: that raised {name_of(raised)}")
        return Ending(
            Outcome.FAILED,
            saved,
            journal.moves > 0,
            error=describe(wrong),
            retry=task.rules.numbers(),
            exception=wrong,
        )


def unfit(saved: Saved, why: str) -> Ending:
    """The Ending of a task whose arguments or saved state this code cannot take; it has not run."""
    return Ending(Outcome.HELD, saved, reason=f"{why}. {REMEDY}", unfit=True)


def left(interrupt: Interrupted, recorder: Recorder, version: int) -> Ending:
    """The Ending of an attempt that ``interrupt`` ended before the task's code began."""
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
    """What the function returns, or the exception that ends it: the first counts. A later exception
    (of a signal handler that the task has set, run by a timer that it left) changes nothing."""
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
    """Call the function, and append what it returns to ``ends``. Raises what it raises."""
    first = (context,) if task.takes_context else ()
    with running(context):
        args = _given(task, context, args)
        if task.is_async:
            try:
                loop.run(_awaited(task, first, args, pid, ends))
            except BaseException as exception:
                # Before ``calm`` cancels the function: that is not how it ended.
                _leave_child(pid, exception)
                ends.append(exception)
            loop.calm()
        else:
            value = task.fn(*first, **args)
            _leave_child(pid)
            ends.append(_Returned(value))


def _given(task: Task[..., Any], context: Base, args: Mapping[str, Any]) -> dict[str, Any]:
    """What the function is called with: enums, dataclasses and paths as its annotations have them.
    The log never has the value, which may be a secret."""

    def failed(name: str, error: Exception) -> None:
        context.log.warning(
            "the argument `%s` is passed as it is stored: its class raised %s", name, name_of(error)
        )

    return task.annotations.restored(args, failed)


async def _awaited(
    task: Task[..., Any],
    first: tuple[Any, ...],
    args: Mapping[str, Any],
    pid: int,
    ends: list[_Returned | BaseException],
) -> None:
    """As ``_run``, inside the event loop. A forked child leaves before the loop is closed, whose
    epoll is the parent's as well.

    The result is appended to ``ends`` instead of returned: asyncio puts a result or exception into
    texts, and fails with one whose ``__repr__`` raises. A cancellation is left to asyncio.
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
    """End a child that the task's code forked: it must not go on as a second worker."""
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
    task: Task[..., Any],
    end: _Returned | BaseException,
    journal: Journal,
    recorder: Recorder,
    clock: Callable[[], float],
) -> Ending:
    ending = Ending(Outcome.SUCCEEDED, journal.saved, journal.moves > 0)
    if type(end) is not _Returned:
        own: Any = _own_end_in(end)
        if issubclass(type(own), Interrupted):
            return _interrupted(own, ending, recorder)
        if issubclass(type(own), OwnEnd):
            return _ended_itself(own, ending, clock)
        return ending._replace(outcome=Outcome.FAILED, exception=end)
    try:
        if type(end.value) is CoroutineType:
            end.value.close()
            raise NotPlainData(
                f"task '{task.name}' returned a coroutine: its function must be async def itself"
            )
        raw = data.encode(end.value, f"the result of task '{task.name}'", data.RESULT_LIMIT)
    except NotPlainData as error:
        return ending._replace(outcome=Outcome.FAILED, exception=error)
    return ending._replace(result=raw)


def _own_end_in(exception: BaseException) -> BaseException | None:
    """The Interrupted, else the OwnEnd, that ended the task, also in exception groups, which
    asyncio's task groups make. None if a group holds another exception as well."""
    found: list[BaseException] = []
    waiting = [exception]
    while waiting:
        each: Any = waiting.pop()
        if issubclass(type(each), (Interrupted, OwnEnd)):
            found.append(each)
        elif issubclass(type(each), BaseExceptionGroup):
            waiting += _MEMBERS.__get__(each)
        else:
            return None
    interrupts = [each for each in found if issubclass(type(each), Interrupted)]
    return next(reversed(interrupts or found), None)


_MEMBERS: Any = BaseExceptionGroup.exceptions
"""The attribute itself: a class of the app's may have another of that name."""


def _ended_itself(end: OwnEnd, ending: Ending, clock: Callable[[], float]) -> Ending:
    """A task that is put off sleeps to 0.2, which knows no other word for that."""
    if issubclass(type(end), Cancel):
        why = plain(str(end.why))
        said = f"cancelled by the task itself{': ' if why else ''}{why}"
        return ending._replace(outcome=Outcome.CANCELLED, reason=said)
    ending = ending._replace(outcome=Outcome.FAILED, exception=end)
    if issubclass(type(end), Retry) and not end.counts:  # type: ignore[attr-defined]
        wake = clock() + float(end.after)  # type: ignore[attr-defined]
        return ending._replace(outcome=Outcome.SLEEPING, reason=plain(str(end.why)), wake=wake)
    return ending


def _interrupted(interrupt: Interrupted, ending: Ending, recorder: Recorder) -> Ending:
    """The Ending that ``interrupt`` makes. A wish goes before a sleep or yield of the task's own,
    but not before a hold, which an operator must see."""
    kind = type(interrupt)
    if issubclass(kind, Held):
        return ending._replace(outcome=Outcome.HELD, reason=plain(str(interrupt.why)))
    wish = recorder.wish()
    if wish is not None and wish.kind == "timeout":
        error = TimedOut(plain(wish.why)).with_traceback(interrupt.__traceback__)
        return ending._replace(outcome=Outcome.FAILED, exception=error)
    if wish is not None:
        return ending._replace(
            outcome=Outcome.CANCELLED if wish.kind == "cancel" else Outcome.LEFT, reason=wish.why
        )
    if issubclass(kind, Sleeping):
        wake = float(interrupt.wake)  # type: ignore[attr-defined]
        if not isfinite(wake):
            raise ValueError(wake)
        return ending._replace(outcome=Outcome.SLEEPING, reason="sleeping", wake=wake)
    if issubclass(kind, Yielded):
        return ending._replace(outcome=Outcome.YIELDED, reason=plain(str(interrupt.why)))
    # The task's code raised it by itself.
    return ending._replace(outcome=Outcome.FAILED, exception=interrupt)

"""The context of a running task: what its function gets as ``ctx``.

Runs in workers, in the thread that runs the task, and in tests. ``journal`` decides what to save,
``recorder`` writes it. ``Base`` and ``LoopIterator`` are what the sync classes here share with the
async ones in ``async_context``.

Invariants
    * A step's result is saved, synced, and read back before the task gets it.
    * A task leaves only inside ``checkpoint``, where a loop asks for its next item (after the last
      one is saved), and, outside of loops, in ``sleep`` and before a ``step``: so no item's body is
      left half done and then run again. A task does not leave before a loop's first item, so that
      every attempt makes progress. A cancelled task leaves in any of these calls.
    * After Interrupted was raised once, each further such call raises it again.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, overload

from taskd.api.checks import check_count, check_function, is_async
from taskd.api.children import Child, Children, HowTo, Submittable
from taskd.api.interrupt import Interrupted, Sleeping
from taskd.api.journal import Journal, Loop, Move, Phase
from taskd.api.own_ends import OwnEnds
from taskd.api.recorder import Recorder
from taskd.api.source import source_of
from taskd.api.state_cost import StateCost
from taskd.api.task_log import TaskLog
from taskd.protocol import data

if TYPE_CHECKING:
    import datetime


T = TypeVar("T")

SHORT_SLEEP = 1.0
"""Seconds left of a named sleep that the worker waits; a longer sleep ends the attempt."""

LONGEST_NOTE = 500
"""Characters of a progress note that are kept."""

NO_MORE: Any = object()


class Base(OwnEnds):
    """What the sync and the async context share.

    ``id``: the task's, as ``taskctl`` shows it. ``attempt``: the number of this attempt; the first
    is 1. ``revision``: the name of the release whose code runs. ``log`` writes lines to the task's
    log: ``ctx.log.info("read %s rows", count)``.
    """

    def __init__(
        self,
        journal: Journal,
        recorder: Recorder,
        clock: Callable[[], float] = time.time,
        on_item: Callable[[str, Any], None] | None = None,
    ) -> None:
        """``on_item`` is told the path of a loop and the item whose body begins; for tests."""
        self.id = recorder.id
        self.attempt = recorder.attempt
        self.revision = recorder.revision
        self.log = TaskLog()
        self._journal = journal
        self._recorder = recorder
        self._clock = clock
        self._on_item = on_item
        self._pid = os.getpid()
        self._thread = threading.get_ident()
        self._ended: Interrupted | None = None
        self._over = False
        self._reports_itself = False
        self._cost = StateCost()
        self._children = Children(recorder.id, recorder.attempt)

    # ── facts ────────────────────────────────────────────────────────────────────────────────

    @property
    def scratch(self) -> Path:
        """A directory of this task's own, kept over all its attempts, for large data."""
        path = Path(self._recorder.scratch)
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    @property
    def slot(self) -> datetime.datetime | None:
        """The time that this run of a schedule is for, in UTC: of a run that is late, or that
        catches up, the one that was meant. None for a task that no schedule has submitted, and
        for one that was run by hand."""
        at = self._recorder.schedule_slot
        if at is None:
            return None
        import datetime  # what only some tasks need

        return datetime.datetime.fromtimestamp(at, datetime.UTC)

    @property
    def state(self) -> dict[str, Any]:
        """A dict of plain data that a resumed run finds again; saved with every move."""
        return self._journal.state

    @property
    def stopping(self) -> bool:
        """Whether the task is asked to leave; it does so at its next safe point by itself."""
        return self._recorder.wish() is not None

    def progress(self, done: int | None = None, total: int | None = None, note: str = "") -> None:
        """Report progress. From now on the loops of this attempt do not report theirs."""
        self._check_place("ctx.progress")
        check_count("done", done)
        check_count("total", total)
        self._reports_itself = True
        self._recorder.progress(
            done, total, str(note)[:LONGEST_NOTE].encode(errors="backslashreplace").decode()
        )

    # ── for the classes below ────────────────────────────────────────────────────────────────

    def _check_place(self, what: str) -> None:
        """Raise RuntimeError but in the task's own thread and process, while the task runs."""
        if os.getpid() != self._pid:
            raise RuntimeError(f"{what} in a forked child: only the task's own process may save")
        if threading.get_ident() != self._thread:
            raise RuntimeError(f"{what} in another thread: only the task's own thread may save")
        if self._over:
            raise RuntimeError(f"{what} after the end of the task that this context belongs to")

    def _check(self, what: str) -> None:
        """Raise what keeps a call from saving: the wrong place, or an earlier Interrupted."""
        self._check_place(what)
        if isinstance(self._ended, Sleeping):
            raise Sleeping(self._ended.wake)
        if self._ended is not None:
            raise type(self._ended)(self._ended.why)  # a new one: a traceback of its own

    @contextmanager
    def _call(self, what: str) -> Iterator[None]:
        """The block is a call of the context that saves or may leave."""
        self._check(what)
        try:
            yield
        except Interrupted as ending:
            self._ended = ending
            raise

    def _leave_if_asked(self, *, is_saved: bool = False) -> None:
        """A safe point: raise Interrupted if there is a wish. In an item's body it is one only for
        a cancel or a timeout, but where ``is_saved``: what the body has done is not saved, and a
        task that left here would do it again."""
        wish = self._recorder.wish()
        if wish is not None and (is_saved or wish.kind != "leave" or not self._journal.loops):
            raise Interrupted(wish.why)

    def _write(self, moves: list[Move]) -> None:
        """Write ``moves``, and the full state where it is due."""
        if moves and self._journal.rebase:
            self._recorder.snapshot(self._journal.saved.encode())
            self._journal.rebase = False
        for move in moves:
            self._recorder.append(*move)
            self._journal.apply(move)
            if (warning := self._cost.wrote(len(move.fields.get("state", b"")))) is not None:
                with suppress(Exception):  # the task may have closed its output
                    self.log.warning(warning)
        if moves and self._recorder.wants_snapshot:
            self._recorder.snapshot(self._journal.saved.encode())

    def _keep_step(self, name: str, path: str, value: Any) -> Any:
        """Save a step's result; returns what was read back."""
        raw = data.encode(value, f"the result of step '{name}'", data.RESULT_LIMIT)
        self._write(self._journal.step(path, raw))
        return data.decode(raw)

    def _checkpoint(self) -> None:
        self._journal.check_not_inside("ctx.checkpoint")
        self._write(self._journal.checkpoint())
        self._leave_if_asked(is_saved=True)

    def _time_to_sleep(self, seconds: float, name: str | None) -> float:
        """Seconds to wait in this attempt. Raises Sleeping where the attempt ends instead."""
        if type(seconds) not in (int, float) or not 0 <= seconds < float("inf"):
            raise ValueError(
                f"the time to sleep must be a number of seconds from 0 on: {seconds!r}"
            )
        if name is None:
            return seconds
        path = self._journal.reserve("sleep", name)
        if self._journal.loops:
            return seconds
        # A sleep that has more left than it had at its beginning: the clock was set back since. It
        # begins anew, and does not last until the clock has caught up.
        longest = seconds + SHORT_SLEEP
        if (
            not self._journal.is_kept(path)
            or self._journal.wake_time(path) > self._clock() + longest
        ):
            self._write(self._journal.step(path, data.encode(self._clock() + seconds)))
        self._leave_if_asked()
        wake = self._journal.wake_time(path)
        left = wake - self._clock()
        if left > SHORT_SLEEP:
            raise Sleeping(wake)
        return max(0.0, left)

    def _report(self, loop: Loop) -> None:
        """Report the outermost loop's progress; that of a loop within it, as the note."""
        if self._reports_itself:
            return
        outer = self._journal.loops[0] if self._journal.loops else loop
        of = "" if loop.total is None else f"/{loop.total}"
        self._recorder.progress(
            outer.done, outer.total, "" if outer is loop else f"{loop.name} {loop.done}{of}"
        )


class Context(Base):
    """What a task's function gets as its first parameter if that is named ``ctx``."""

    def step(self, name: str, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """Call ``fn`` and keep its result under ``name``; once kept, return the result instead.

        The result must be plain data of at most 1 MiB; what is returned is what was read back.
        A step that raises keeps nothing, and its name may be used again. Raises RuntimeError for
        a name that is used twice, TypeError and ValueError for an impossible name, and
        NotPlainData for a result that cannot be saved.
        """
        with self._call("ctx.step"):
            path = self._journal.reserve("step", name)
            if self._journal.is_kept(path):
                return self._journal.result(path)  # type: ignore[no-any-return]
            self._leave_if_asked()
            try:
                check_function(name, fn)
                with self._journal.within(f"step '{name}'"):
                    value = fn(*args, **kwargs)
                if is_async(value):
                    raise TypeError(
                        f"step '{name}' is async and the task is not: make the task's function "
                        f"async def and write await ctx.step('{name}', …)"
                    )
            except BaseException:
                self._journal.release(path)
                raise
            return self._keep_step(name, path, value)  # type: ignore[no-any-return]

    @overload
    def each(self, name: str, source: Sequence[T], *, total: int | None = None) -> Each[T]: ...
    @overload
    def each(
        self,
        name: str,
        source: Callable[..., Iterable[tuple[Any, T]]],
        *args: Any,
        total: int | None = None,
    ) -> Each[T]: ...
    def each(self, name: str, source: Any, *args: Any, total: int | None = None) -> Each[Any]:
        """Go over ``source``; asking for the next item saves that this one is done.

        ``source``: a sequence, or a function that takes the last cursor (None at first) and
        ``args`` and yields (cursor, item). ``total``: of how many items, for progress. Raises
        TypeError for anything that cannot be resumed, such as a dict or an iterator.
        """
        with self._call("ctx.each"):
            return Each(self, Loop(self._journal, name, source_of(name, source, args), total))

    def checkpoint(self) -> None:
        """Save ``ctx.state``; the task may leave here."""
        with self._call("ctx.checkpoint"):
            self._checkpoint()

    def submit(self, task: Submittable | HowTo, /, *args: Any, **kwargs: Any) -> Child:
        """Have the daemon run ``task`` with these arguments as a child of this task.
        ``task.using(name=…, detached=True)``: the name by which it is submitted once, however often
        this task runs again; a cancel of this task does not reach it.
        """
        with self._call("ctx.submit"):
            return self._children.submit(task, args, kwargs)

    def sleep(self, seconds: float, name: str | None = None) -> None:
        """Sleep, but no longer than until the task is asked to leave.

        Outside of loops the task then leaves here; in a loop's body the sleep is cut short, and
        the task leaves once the item is saved: its body is not run twice.

        With a ``name``, and outside of any loop, the time to wake is kept, and a sleep of more
        than a second frees the worker: the task continues at that time in a new attempt.
        """
        with self._call("ctx.sleep"):
            if self._recorder.wait_for(lambda: self.stopping, self._time_to_sleep(seconds, name)):
                self._leave_if_asked()


class LoopIterator:
    """What the iterators of sync and async loops share. The loop ends with its iterator: at the
    end of the source, or when the iterator is dropped."""

    __slots__ = ("_context", "_loop")

    def __init__(self, context: Base, loop: Loop) -> None:
        self._context = context
        self._loop = loop

    def close(self) -> None:
        """Leave the loop without saving the current item; for code that holds the iterator."""
        self._loop.leave()

    def __del__(self) -> None:
        if hasattr(self, "_loop"):
            self._loop.leave()

    def _sourcing(self) -> AbstractContextManager[None]:
        """The block runs code of the loop's source."""
        return self._context._journal.within(f"the source of loop '{self._loop.name}'")

    def _save(self) -> None:
        """Save the item whose body is done, and report; the task may leave here."""
        context, loop = self._context, self._loop
        moves, finished = loop.saving()
        context._write(moves)
        loop.saved(finished)
        context._report(loop)
        context._leave_if_asked(is_saved=True)

    def _take(self, given: Any) -> Any:
        """Take what the source gave; returns the item whose body begins, or NO_MORE."""
        context, loop = self._context, self._loop
        if given is NO_MORE:
            context._write(loop.finishing())
            loop.finished()
            context._report(loop)
            return NO_MORE
        item = loop.arrive(given)
        if context._on_item is not None:
            context._on_item(loop.path, item)
        return item


class Each(LoopIterator, Generic[T]):
    """The iterator of one ``ctx.each``.

    A ``for`` loop drops its iterator on ``break`` and on an exception, at once.
    """

    __slots__ = ("_items",)

    def __iter__(self) -> Each[T]:
        return self

    def __next__(self) -> T:
        loop, item = self._loop, NO_MORE
        is_new = loop.phase is Phase.NEW
        with self._context._call("ctx.each"):
            if is_new:
                cursor = loop.open()
                self._context._report(loop)
                if loop.phase is not Phase.OVER:
                    with self._sourcing():
                        self._items = loop.source.pull(cursor)
            elif loop.phase is not Phase.OVER:
                self._save()
            if loop.phase is not Phase.OVER:
                with self._sourcing():
                    given = next(self._items, NO_MORE)
                item = self._take(given)
        if item is NO_MORE:
            raise StopIteration  # outside of the block: a generator would turn it into an error
        return cast(T, item)


_current: list[Base] = []


def current() -> Context:
    """The context of the task that runs in this process, for code that is not passed it.

    In an async task it is that task's ``AsyncContext``. Raises RuntimeError where no task runs.
    """
    if not _current:
        raise RuntimeError("taskd.current(): no task runs in this process")
    return _current[-1]  # type: ignore[return-value]  # its methods are those of the task's kind


@contextmanager
def running(context: Base) -> Iterator[None]:
    """The task of ``context`` runs in the block."""
    _current.append(context)
    try:
        yield
    finally:
        _current.remove(context)
        context._over = True

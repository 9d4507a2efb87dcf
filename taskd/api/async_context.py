"""The context of an ``async def`` task: as ``context``, with ``await``.

Runs in workers, in the main thread's event loop, and in tests. The calls that may save or leave
are awaited: ``step``, ``checkpoint``, ``sleep`` and ``async for … in ctx.each(…)``.

Invariant: at any time at most one asyncio task is within such a call, and while a loop is open
only the asyncio task that runs the loop may make one. Otherwise two runs of the same code could
save in different orders, and a name could get into the scope of another loop's item.
"""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import contextmanager
from inspect import isawaitable
from typing import Any, Generic, TypeVar, cast, overload

from taskd.api.checks import check_function
from taskd.api.children import Child, HowTo, Submittable
from taskd.api.context import NO_MORE, Base, LoopIterator
from taskd.api.journal import Loop, Phase
from taskd.api.source import Called, source_of

T = TypeVar("T")


class AsyncContext(Base):
    """What the function of an ``async def`` task gets as ``ctx``."""

    _busy: asyncio.Task[Any] | None = None  # the asyncio task that is within a call

    def _check(self, what: str) -> None:
        super()._check(what)
        task = asyncio.current_task()
        if self._busy is not None and self._busy is not task:
            raise RuntimeError(
                f"{what} while another call of the context has not returned: a task does one "
                "thing after the other. Gather within one step instead"
            )
        loops = self._journal.loops
        if loops and loops[-1].owner is not task:
            raise RuntimeError(
                f"{what} in another asyncio task than loop '{loops[-1].name}', which is open: call "
                "it in the loop's own (asyncio.wait_for makes another; asyncio.timeout does not)"
            )

    @contextmanager
    def _call(self, what: str) -> Iterator[None]:
        with super()._call(what):
            before, self._busy = self._busy, asyncio.current_task()
            try:
                yield
            finally:
                self._busy = before

    @overload
    async def step(
        self, name: str, fn: Callable[..., Awaitable[T]], /, *args: Any, **kwargs: Any
    ) -> T: ...
    @overload
    async def step(self, name: str, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> T: ...
    async def step(self, name: str, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """As ``Context.step``; what ``fn`` returns is awaited if it can be."""
        with self._call("ctx.step"):
            path = self._journal.reserve("step", name)
            if self._journal.is_kept(path):
                return self._journal.result(path)
            self._leave_if_asked()
            try:
                check_function(name, fn)
                with self._journal.within(f"step '{name}'"):
                    value = fn(*args, **kwargs)
                    if isawaitable(value):
                        value = await value
            except BaseException:
                self._journal.release(path)
                raise
            return self._keep_step(name, path, value)

    @overload
    def each(self, name: str, source: Sequence[T], *, total: int | None = None) -> AsyncEach[T]: ...
    @overload
    def each(
        self,
        name: str,
        source: Callable[..., AsyncIterable[tuple[Any, T]] | Iterable[tuple[Any, T]]],
        *args: Any,
        total: int | None = None,
    ) -> AsyncEach[T]: ...
    def each(self, name: str, source: Any, *args: Any, total: int | None = None) -> AsyncEach[Any]:
        """As ``Context.each``, for ``async for``; ``source`` may be an async generator function."""
        with self._call("ctx.each"):
            return AsyncEach(self, Loop(self._journal, name, source_of(name, source, args), total))

    async def checkpoint(self) -> None:
        """Save ``ctx.state``; the task may leave here."""
        with self._call("ctx.checkpoint"):
            self._checkpoint()

    async def submit(self, task: Submittable | HowTo, /, *args: Any, **kwargs: Any) -> Child:
        """As ``Context.submit``."""
        with self._call("ctx.submit"):
            return await asyncio.to_thread(self._children.submit, task, args, kwargs)

    async def sleep(self, seconds: float, name: str | None = None) -> None:
        """As ``Context.sleep``; other asyncio tasks go on meanwhile."""
        with self._call("ctx.sleep"):
            left = self._time_to_sleep(seconds, name)
            cancelled = False
            waiting = asyncio.get_running_loop().run_in_executor(
                None, self._recorder.wait_for, lambda: cancelled or self.stopping, left
            )
            try:
                is_asked = await asyncio.shield(waiting)
            except asyncio.CancelledError:  # the thread that waits ends at once
                cancelled = True
                self._recorder.wake()
                raise
            if is_asked:
                self._leave_if_asked()


class AsyncEach(LoopIterator, Generic[T]):
    """The iterator of one ``ctx.each`` in an async task; see ``context.Each``."""

    __slots__ = ("_items",)

    def __aiter__(self) -> AsyncEach[T]:
        return self

    async def __anext__(self) -> T:
        loop, item = self._loop, NO_MORE
        is_new = loop.phase is Phase.NEW
        with self._context._call("ctx.each"):
            if is_new:
                cursor = loop.open()
                self._context._report(loop)
                if loop.phase is not Phase.OVER:
                    loop.owner = asyncio.current_task()
                    with self._sourcing():
                        self._items = await self._pull(cursor)
            elif loop.phase is not Phase.OVER:
                self._save()
            if loop.phase is not Phase.OVER:
                with self._sourcing():
                    given = (
                        await anext(self._items, NO_MORE)
                        if isinstance(self._items, AsyncIterator)
                        else next(self._items, NO_MORE)
                    )
                item = self._take(given)
        if item is NO_MORE:
            raise StopAsyncIteration
        return cast(T, item)

    async def _pull(self, cursor: Any) -> Iterator[Any] | AsyncIterator[Any]:
        """The source's pairs from ``cursor`` on."""
        source = self._loop.source
        if not isinstance(source, Called):
            return source.pull(cursor)
        found = source.function(cursor, *source.args)
        if isawaitable(found):
            found = await found
        return aiter(found) if isinstance(found, AsyncIterable) else iter(source.iterable(found))

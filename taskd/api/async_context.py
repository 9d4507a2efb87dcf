"""The context of an ``async def`` task: the same machine as ``context``, with ``await``.

Runs in workers, in the main thread's event loop, and in tests. What may save or leave is awaited:
``step``, ``checkpoint``, ``sleep`` and ``async for … in ctx.each(…)``.

Invariant: at any time one asyncio task at most is within such a call, and while a loop is open
only the asyncio task that runs the loop may begin one. Else two runs of the same code could be
saved in different orders, and names would land in a scope they do not belong to.
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
from contextlib import AbstractContextManager, contextmanager
from inspect import isawaitable
from typing import Any, Generic, TypeVar, cast, overload

from taskd.api.checks import check_function
from taskd.api.context import NO_MORE, Base
from taskd.api.journal import Loop, Phase
from taskd.api.source import Called

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
            self._leave_between_items()
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
            return AsyncEach(self, self._new_loop(name, source, args, total))

    async def checkpoint(self) -> None:
        """Save ``ctx.state``; the task may leave here."""
        with self._call("ctx.checkpoint"):
            self._checkpoint()

    async def sleep(self, seconds: float, name: str | None = None) -> None:
        """As ``Context.sleep``; other asyncio tasks go on meanwhile."""
        with self._call("ctx.sleep"):
            if await self._wait(self._time_to_sleep(seconds, name)):
                self._leave_between_items()

    async def _wait(self, seconds: float) -> bool:
        """``recorder.wait`` in a thread, which ends at once if this is cancelled."""
        cancelled = False

        def until() -> bool:
            return cancelled or self._recorder.wish() is not None

        loop = asyncio.get_running_loop()
        waiting = loop.run_in_executor(None, self._recorder.wait_for, until, seconds)
        try:
            return await asyncio.shield(waiting)
        except asyncio.CancelledError:
            cancelled = True
            self._recorder.wake()
            raise


class AsyncEach(Generic[T]):
    """The iterator of one ``ctx.each`` in an async task; see ``context.Each``."""

    __slots__ = ("_context", "_items", "_loop")

    def __init__(self, context: AsyncContext, loop: Loop) -> None:
        self._context = context
        self._loop = loop
        self._items: Iterator[Any] | AsyncIterator[Any] = iter(())

    def __aiter__(self) -> AsyncEach[T]:
        return self

    async def __anext__(self) -> T:
        with self._context._call("ctx.each"):
            if self._loop.phase is Phase.NEW:
                await self._open()
            elif self._loop.phase is not Phase.OVER:
                self._context._save_item(self._loop)
            given = NO_MORE if self._loop.phase is Phase.OVER else await self._pull()
        if given is NO_MORE:
            raise StopAsyncIteration
        return cast(T, given)

    def close(self) -> None:
        """Leave the loop without saving the item at hand; for who holds the iterator itself."""
        self._loop.leave()

    def __del__(self) -> None:
        if hasattr(self, "_loop"):
            self._loop.leave()

    async def _open(self) -> None:
        loop = self._loop
        cursor = loop.open()
        self._context._report(loop)
        if loop.phase is Phase.OVER:
            return
        loop.owner = asyncio.current_task()
        with self._sourcing():
            self._items = await self._started(cursor)

    async def _started(self, cursor: Any) -> Iterator[Any] | AsyncIterator[Any]:
        source = self._loop.source
        if not isinstance(source, Called):
            return source.pull(cursor)
        found = source.call(cursor)
        if isawaitable(found):
            found = await found
        if isinstance(found, AsyncIterable):
            return aiter(found)
        return iter(source.iterable(found))

    async def _pull(self) -> Any:
        with self._sourcing():
            if isinstance(self._items, AsyncIterator):
                given = await anext(self._items, NO_MORE)
            else:
                given = next(self._items, NO_MORE)
        if given is NO_MORE:
            self._context._finish(self._loop)
            return NO_MORE
        item = self._loop.arrive(given)
        self._context._begin_item(self._loop, item)
        return item

    def _sourcing(self) -> AbstractContextManager[None]:
        return self._context._journal.within(f"the source of loop '{self._loop.name}'")

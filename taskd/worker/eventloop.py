"""The event loop of async tasks: one for a worker's life, so that an object that a module keeps
from one task to the next (an ``asyncio.Lock``, a pool, a client) works in each task.

Runs in a worker's main thread, and in tests. The loop is made in the worker, with its first async
task: no two processes share one. It is of the kind that the app's event loop policy makes.

Invariants
    * What a task leaves running in the loop ends with the task: asyncio tasks are cancelled, async
      generators closed, jobs in the default executor waited for, signal handlers removed.
    * A loop in which something still runs is not used again (``is_spoilt``).

Callbacks that the task has scheduled without an asyncio task (``call_later``, transports) stay:
they may belong to an object that a module keeps.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import AsyncGenerator, Coroutine
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue  # noqa: F401  (the executor needs it, and not an app's queue.py)
from typing import Any
from weakref import WeakSet

from taskd.posix import descriptors

_ROUNDS = 100
"""Times that the asyncio tasks that are left are cancelled: each may start another one."""


class EventLoop:
    """``descriptors``: those that the loop itself has open."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._generators: WeakSet[AsyncGenerator[Any, Any]] = WeakSet()
        self._pool = _Pool()
        self._usual: tuple[Any, Any, bool] = (None, None, False)
        self.descriptors: frozenset[int] = frozenset()
        self.is_spoilt = False

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        """Run ``main`` to its end; raises what it raises, or what else ends the loop's run. The
        caller calls ``calm`` afterwards."""
        try:
            loop = self._loop
            if loop is None:
                before = descriptors.opened()
                loop = asyncio.new_event_loop()
                loop.run_until_complete(asyncio.sleep(0))  # some open what they need at first run
                self.descriptors = frozenset(descriptors.opened().keys() - before.keys())
                self._usual = (
                    loop.get_task_factory(),
                    loop.get_exception_handler(),
                    loop.get_debug(),
                )
                self._loop = loop
            asyncio.set_event_loop(loop)
            self._pool = _Pool(thread_name_prefix="asyncio")
            loop.set_default_executor(self._pool)
            watched = self._watched(main)
        except BaseException:
            main.close()
            raise
        loop.run_until_complete(watched)

    def calm(self) -> None:
        """End what the task has left in the loop, and undo its settings. Raises what ends the
        loop's run meanwhile; the loop is spoilt then."""
        loop, self.is_spoilt = self._loop, True
        if loop is None:
            return
        factory, handler, debug = self._usual
        loop.set_task_factory(factory)
        loop.set_exception_handler(handler)
        loop.set_debug(debug)
        for number in signal.valid_signals():
            if callable(signal.getsignal(number)):
                loop.remove_signal_handler(number)
        _cancel_what_is_left(loop)
        loop.run_until_complete(self._close_generators(loop))
        if self._pool.used:
            loop.run_until_complete(_shut_down(self._pool))
        _cancel_what_is_left(loop)
        asyncio.set_event_loop(None)
        self.is_spoilt = loop.is_closed()

    def close(self) -> None:
        if self._loop is not None and not self._loop.is_running():
            asyncio.set_event_loop(None)
            self._loop.close()

    async def _watched(self, main: Coroutine[Any, Any, None]) -> None:
        """Run ``main``, and collect the async generators that begin meanwhile (asyncio's own
        function to close them works only once a loop)."""
        usual = sys.get_asyncgen_hooks()

        def begun(generator: AsyncGenerator[Any, Any]) -> None:
            self._generators.add(generator)
            if usual.firstiter is not None:
                usual.firstiter(generator)

        sys.set_asyncgen_hooks(firstiter=begun)  # until the loop's run ends, which puts its back
        await main

    async def _close_generators(self, loop: asyncio.AbstractEventLoop) -> None:
        found, self._generators = list(self._generators), WeakSet()
        closing = [generator.aclose() for generator in found]
        for generator, end in zip(
            found, await asyncio.gather(*closing, return_exceptions=True), strict=True
        ):
            if end is not None:
                loop.call_exception_handler(
                    {
                        "message": "an error while closing an async generator",
                        "exception": end,
                        "asyncgen": generator,
                    }
                )


class _Pool(ThreadPoolExecutor):
    used = False

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        self.used = True
        return super().submit(*args, **kwargs)


def _cancel_what_is_left(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel all asyncio tasks, and those that they start. Raises RuntimeError after _ROUNDS."""
    for _ in range(_ROUNDS):
        left = asyncio.all_tasks(loop)
        if not left:
            return
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        for task in left:
            if not task.cancelled() and (error := task.exception()) is not None:
                loop.call_exception_handler(
                    {
                        "message": "an unhandled exception in a task that was left",
                        "exception": error,
                        "task": task,
                    }
                )
    raise RuntimeError("the task's asyncio tasks do not end when they are cancelled")


async def _shut_down(pool: ThreadPoolExecutor) -> None:
    """Wait for the pool's jobs, while the loop goes on: they may need it."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def wait() -> None:
        pool.shutdown()
        loop.call_soon_threadsafe(ended.set)

    thread = threading.Thread(target=wait)
    thread.start()
    await ended.wait()
    thread.join()

"""``AsyncClient``: the daemon, for asyncio.

All requests and streams share one connection, read by one task of the event loop; a deploy has
its own while it lasts. A lost one is made again (see ``session``). Belongs to one event loop and
one process; used in another one, it begins anew there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from taskd.client import operations
from taskd.client.aio_link import AsyncLink
from taskd.client.operations import Handle, Operations
from taskd.client.records import task_info
from taskd.client.session import NOT_REPEATED, PATIENCE, Asked, Patience, Reached, still_running
from taskd.errors import Refused

if TYPE_CHECKING:
    from taskd.client.operations import Steps
    from taskd.client.records import Event, TaskInfo

T = TypeVar("T")


class AsyncTaskHandle(Handle):
    """A task by its ``id``; see ``TaskHandle`` for what each method does."""

    __slots__ = ()
    _client: AsyncClient

    async def status(self) -> TaskInfo:
        """How it is now."""
        return await self._client.task(self.id)

    async def wait(self, timeout: float | None = None) -> TaskInfo:
        """Wait until it is settled (ended or held). Raises TimeoutError after ``timeout`` s."""
        return (await self._client.wait([self.id], timeout))[0]

    async def result(self, timeout: float | None = None) -> Any:
        """What it returned. Raises TaskFailed, TaskHeld, TaskCancelled or TimeoutError."""
        return (await self.wait(timeout)).outcome()

    def follow(self, after: int = 0, progress: bool = False) -> AsyncIterator[Event]:
        """Its events after number ``after`` until it is settled (see ``Client.follow``)."""
        return self._client.follow([self.id], after, progress)

    async def cancel(self) -> dict[str, Any]:
        """Cancel it; answers {state, was}."""
        return await self._client.cancel(self.id)

    async def retry(self) -> dict[str, Any]:
        """Queue it again if it is held, failed or cancelled; answers {state}."""
        return await self._client.retry(self.id)


class AsyncClient(Operations[AsyncTaskHandle]):
    """A client of the daemon with ``await``: all that ``Client`` has.

    ``socket`` and ``timeout`` as there. Every method raises NoDaemon, or Refused (or a kind of
    it) saying why. A ``reload`` or ``rollback`` that is cancelled is given up. Not for several
    threads.
    """

    _handle = AsyncTaskHandle
    _is_async: Literal[True] = True

    def __init__(self, socket: str | None = None, timeout: float = PATIENCE) -> None:
        self._timeout = timeout
        self._socket = socket
        self._reached = Reached()
        self._link = self._new_link()

    async def wait(self, tasks: Iterable[int], timeout: float | None = None) -> list[TaskInfo]:
        """Wait until all are settled (ended or held); how each ended, in the order given.

        Raises TimeoutError after ``timeout`` seconds; the tasks go on.
        """
        ids = list(tasks)
        if timeout is not None and timeout <= 0:  # one look
            return operations.settled([await self.task(task) for task in ids])
        settled: dict[int, TaskInfo] = {}
        try:
            async with asyncio.timeout(timeout):
                for asked in operations.waits(ids, for_ever=False):
                    async for item in self._stream(asked):
                        info = task_info(item["task"])
                        settled[info.id] = info
        except TimeoutError:
            raise still_running([task for task in ids if task not in settled]) from None
        return [settled[task] for task in ids]

    def follow(
        self, tasks: Iterable[int], after: int = 0, progress: bool = False
    ) -> AsyncIterator[Event]:
        """The tasks' events after number ``after``, as they come, until all are settled.

        See ``Client.follow``.
        """
        return self._stream(operations.follow(tasks, after, progress))

    async def close(self) -> None:
        """Close the connection; what still waits on it fails. A later request makes a new one."""
        await self._link.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def _run(self, steps: Steps[T]) -> T:
        try:
            asked = next(steps)
            while True:
                try:
                    ok = await self._answer(asked)
                except Refused as error:
                    asked = steps.throw(error)
                else:
                    asked = steps.send(ok)
        except StopIteration as end:
            result: T = end.value
            return result

    async def _answer(self, asked: Asked) -> dict[str, Any]:
        if asked.op not in NOT_REPEATED:
            return await self._link.run(asked, self._timeout)
        link = self._new_link()
        try:
            return await link.run(asked, None)
        finally:
            await link.close()

    async def _stream(self, asked: Asked) -> AsyncIterator[dict[str, Any]]:
        if asked.fields["tasks"]:
            async for item in self._link.stream(asked):
                yield item

    def _new_link(self) -> AsyncLink:
        return AsyncLink(self._socket, Patience(self._timeout, self._reached))

"""A task as ``AsyncClient`` hands it out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from taskd.client.aio import AsyncClient
    from taskd.client.records import Event, TaskInfo


class AsyncTaskHandle:
    """A task by its ``id``; see ``TaskHandle`` for what each method does."""

    __slots__ = ("_client", "id")

    def __init__(self, client: AsyncClient, id: int) -> None:
        self._client = client
        self.id = id

    def __repr__(self) -> str:
        return f"<task {self.id}>"

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

"""``AsyncClient``: the daemon, for asyncio.

All requests and streams share one connection, read by one task of the event loop; a deploy has
its own while it lasts. A lost one is made again (see ``session``). Belongs to one event loop and
one process; used in another one, it begins anew there.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from taskd.client import asks, session
from taskd.client.address import Address
from taskd.client.aio_handle import AsyncTaskHandle
from taskd.client.records import task_info
from taskd.client.session import PATIENCE, Asked, Patience, Reached, Session, still_running
from taskd.errors import Busy, Error, NotAllowed, Refused
from taskd.protocol.operations import MAX_WATCHED

if TYPE_CHECKING:
    from taskd.client.records import Event, TaskInfo

T = TypeVar("T")

_CHUNK = 262144


class AsyncClient:
    """A client of the daemon with ``await``; see ``Client`` for what each method does.

    ``socket`` and ``timeout`` as there. Every method raises NoDaemon, or Refused (or a kind of
    it) saying why. Not for several threads.
    """

    def __init__(self, socket: str | None = None, timeout: float = PATIENCE) -> None:
        self._timeout = timeout
        self._socket = socket
        self._reached = Reached()
        self._wire = self._new_wire()

    async def submit(
        self,
        name: str,
        args: dict[str, Any] | None = None,
        *,
        key: str | None = None,
        priority: int = 0,
        queue: str | None = None,
        delay: float | None = None,
        options: dict[str, Any] | None = None,
    ) -> AsyncTaskHandle:
        """Queue a task; once this returns, it is on disk. See ``Client.submit``."""
        ask = asks.submit(
            name,
            {} if args is None else args,
            key=key,
            priority=priority,
            queue=queue,
            delay=delay,
            options=options,
        )
        return AsyncTaskHandle(self, await self._do(ask))

    def handle(self, task: int) -> AsyncTaskHandle:
        """A handle on a task by its id; asks nothing."""
        return AsyncTaskHandle(self, task)

    async def task(self, task: int) -> TaskInfo:
        """How the task is now. Raises UnknownTask."""
        return await self._do(asks.show(task))

    async def tasks(
        self,
        *,
        state: str | None = None,
        queue: str | None = None,
        name: str | None = None,
        limit: int = 100,
        before: int | None = None,
        results: bool = False,
    ) -> list[TaskInfo]:
        """At most ``limit`` tasks, newest first, with ids below ``before``."""
        narrow = {"state": state, "queue": queue, "name": name, "results": results or None}
        found: list[TaskInfo] = []
        while len(found) < limit:
            ask = asks.listing(limit - len(found), before=before, **narrow)
            page = await self._do(ask)
            if not page:
                break
            found += page
            before = page[-1].id
        return found

    async def status(self) -> dict[str, Any]:
        """The daemon: pid, revision, release, confirmed, symlink, … See ``Client.status``."""
        return await self._do(asks.status())

    async def revisions(self) -> list[dict[str, Any]]:
        """Each live one. See ``Client.revisions``."""
        return await self._do(asks.revisions())

    async def rejected(self) -> list[dict[str, Any]]:
        """The releases that were refused of late, the latest last: revision, path, reason, at."""
        return await self._do(asks.rejected())

    async def reload(
        self, release: str | None = None, *, plan: bool = False, allow_held: bool = False
    ) -> dict[str, Any]:
        """Deploy and wait for the verdict; cancelled, it is given up. See ``Client.reload``."""
        return await self._deploy(asks.reload(release, plan, allow_held))

    async def rollback(self, *, plan: bool = False, allow_held: bool = False) -> dict[str, Any]:
        """Deploy the release that was confirmed before this one; all else as ``reload``."""
        return await self._deploy(asks.rollback(plan, allow_held))

    async def shutdown(self, *, plan: bool = False, keep: bool | None = None) -> dict[str, Any]:
        """Stop the daemon and wait until its tasks have left. See ``Client.shutdown``."""
        return await self._deploy(asks.shutdown(plan, keep))

    async def drain(self, revision: str, how: str = "finish") -> dict[str, Any]:
        """Make a draining revision empty sooner; answers {running, asked}. See ``Client.drain``."""
        return await self._do(asks.drain(revision, how))

    async def cancel(self, task: int) -> dict[str, Any]:
        """Cancel a task; answers {state, was}. One that has ended stays as it is."""
        return await self._do(asks.cancel(task))

    async def retry(self, task: int) -> dict[str, Any]:
        """Queue a held, failed or cancelled task again, with its saved state; answers {state}."""
        return await self._do(asks.retry(task))

    async def log(self, task: int, offset: int = 0, limit: int | None = None) -> dict[str, Any]:
        """A part of its output: {data, offset, size, ended}; ``offset`` is where it ends."""
        return await self._do(asks.log(task, offset, limit))

    async def wait(self, tasks: Iterable[int], timeout: float | None = None) -> list[TaskInfo]:
        """Wait until all are settled (ended or held); how each ended, in the order given.

        Raises TimeoutError after ``timeout`` seconds; the tasks go on.
        """
        ids = list(tasks)
        if timeout is not None and timeout <= 0:  # one look
            return asks.settled([await self.task(task) for task in ids])
        settled: dict[int, TaskInfo] = {}
        try:
            async with asyncio.timeout(timeout):
                await self._collect(ids, settled)
        except TimeoutError:
            raise still_running([task for task in ids if task not in settled]) from None
        return [settled[task] for task in ids]

    def follow(
        self, tasks: Iterable[int], after: int = 0, progress: bool = False
    ) -> AsyncIterator[Event]:
        """The tasks' events after number ``after``, as they come, until all are settled.

        See ``Client.follow``.
        """
        return self._stream("follow", asks.follow(tasks, after, progress))

    @property
    def connections_lost(self) -> int:
        """How many connections the daemon's end cut off while they were wanted."""
        return self._reached.lost

    async def close(self) -> None:
        """Close the connection; what still waits on it fails. A later request makes a new one."""
        await self._wire.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _do(self, ask: asks.Ask[T]) -> T:
        asked = Asked(ask.op, ask.fields)
        try:
            ok = await self._wire.run(asked, self._timeout)
        except Refused:
            if asked.sent < 2 or ask.recheck is None:
                raise
            return await self._do(ask.recheck)
        return ask.read(ok)

    def _new_wire(self) -> _Wire:
        return _Wire(self._socket, Patience(self._timeout, self._reached))

    async def _deploy(self, ask: asks.Ask[T]) -> T:
        wire = self._new_wire()
        try:
            return ask.read(await wire.run(Asked(ask.op, ask.fields), None))
        finally:
            await wire.close()

    async def _collect(self, ids: list[int], settled: dict[int, TaskInfo]) -> None:
        for start in range(0, len(ids), MAX_WATCHED):
            fields = asks.wait(ids[start : start + MAX_WATCHED])
            async for item in self._stream("wait", fields):
                info = task_info(item["task"])
                settled[info.id] = info

    async def _stream(self, op: str, fields: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        if fields["tasks"]:
            async for item in self._wire.stream(Asked(op, fields)):
                yield item


class _Wire:
    """The one connection, made again when it is lost, as long as anything waits for it.

    Invariants: ``_pump`` is the only reader and the only one that connects; ``_writer`` is None
    while there is no connection, ``_trouble`` then says why, if a try has failed; ``_why_lost`` is
    why the daemon ended the last one, if it said so; ``_news`` has an event for each request that
    somebody awaits.
    """

    def __init__(self, socket: str | None, patience: Patience) -> None:
        self._address = Address(socket)
        self._patience = patience
        self._home: tuple[int, asyncio.AbstractEventLoop] | None = None
        self._reset()

    def _reset(self) -> None:
        self._session = Session()
        self._writer: asyncio.StreamWriter | None = None
        self._pump: asyncio.Task[None] | None = None
        self._news: dict[Asked, asyncio.Event] = {}
        self._trouble: Error | None = None
        self._why_lost: Error | None = None

    async def run(self, asked: Asked, within: float | None) -> dict[str, Any]:
        """The ``ok`` of a request. Raises its refusal, or NoDaemon after ``within`` seconds."""
        try:
            async with asyncio.timeout(within):
                await self._begin(asked).wait()
        except TimeoutError:
            late = session.no_answer(self._patience.limit, self._address.log)
            raise self._trouble or late from None
        finally:
            self._leave(asked)
        if asked.error is not None:
            raise asked.error
        return asked.ok or {}

    async def stream(self, asked: Asked) -> AsyncIterator[dict[str, Any]]:
        """The items of a stream until it ends."""
        news = self._begin(asked)
        try:
            while True:
                await news.wait()
                news.clear()
                while asked.items:
                    yield asked.items.popleft()
                if asked.error is not None:
                    raise asked.error
                if asked.is_over:
                    return
        finally:
            self._leave(asked)

    async def close(self) -> None:
        pump, writer = self._pump, self._writer
        if pump is not None and self._home == _here():
            pump.cancel()
            await asyncio.wait([pump])
            if writer is not None:
                with suppress(OSError):
                    await writer.wait_closed()
        self._tell(self._session.fail(Error("the client was closed")))

    def _begin(self, asked: Asked) -> asyncio.Event:
        if self._home != _here():
            self._home = _here()
            self._reset()
        news = self._news[asked] = asyncio.Event()
        self._session.ask(asked)
        if asked.is_over:
            news.set()
        self._send()
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._run(), name="taskd client")
        return news

    def _leave(self, asked: Asked) -> None:
        if self._news.pop(asked, None) is not None:
            self._session.drop(asked)
            self._send()

    def _send(self) -> None:
        if self._writer is not None and (data := self._session.to_send()):
            self._writer.write(data)

    def _tell(self, news: Iterable[Asked]) -> None:
        for asked in news:
            if asked in self._news:
                self._news[asked].set()

    async def _run(self) -> None:
        """Connect and read, until nothing waits any more when the connection is lost."""
        try:
            while self._session.has_work:
                reader = await self._connect()
                try:
                    await self._read(reader)
                finally:
                    self._hang_up()
                if self._session.has_work:
                    self._patience.lost()
                    await self._pause(self._why_lost or session.connection_lost(self._address.log))
        except Error as error:
            self._tell(self._session.fail(error))
        except Exception as error:  # a bug of ours; whoever waits must not wait for ever
            self._tell(self._session.fail(Error(f"the client broke: {error!r}")))
            raise

    async def _connect(self) -> asyncio.StreamReader:
        while True:
            try:
                sock = await asyncio.to_thread(self._address.connect, self._patience.limit)
                break
            except Error as error:
                await self._pause(error)
        self._trouble = None
        self._patience.connected()
        self._session.connected()
        try:
            # A writer that finds the connection closed drops what the daemon may have said before.
            with suppress(BrokenPipeError, ConnectionResetError):
                await asyncio.to_thread(sock.sendall, self._session.to_send())
            reader, self._writer = await asyncio.open_unix_connection(sock=sock)
        except BaseException:  # cancelled, perhaps with the request sent: the daemon must see us go
            with sock, suppress(OSError):  # also while the thread, being at it, keeps it open
                sock.shutdown(socket.SHUT_RDWR)
            raise
        self._send()
        return reader

    async def _pause(self, trouble: Error) -> None:
        self._trouble = trouble
        await asyncio.sleep(self._patience.pause(trouble, time.monotonic()))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        """Until the connection is lost, or is of no use to our user and another one may be.

        Raises ProtocolError if the daemon broke the protocol, NotAllowed if it wants none of us.
        """
        self._why_lost = None
        while data := await _chunk(reader):
            try:
                news = self._session.receive(data)
            except NotAllowed:
                if not self._address.turned_away():
                    raise
                self._session.turned_away()
                return
            except Busy as error:
                self._why_lost = error
                self._session.turned_away()
                return
            if news:
                self._patience.heard()
            self._tell(news)
            self._send()

    def _hang_up(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._tell(self._session.lost())


async def _chunk(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(_CHUNK)
    except OSError:
        return b""


def _here() -> tuple[int, asyncio.AbstractEventLoop]:
    return os.getpid(), asyncio.get_running_loop()

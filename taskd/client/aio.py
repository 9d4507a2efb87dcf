"""``AsyncClient``: the daemon, for asyncio.

All requests and streams share one connection, an ``AsyncLink``, made again whenever it is lost
(see ``session``); a deploy has its own while it lasts. A task of the event loop, the pump, connects
and reads as long as a request waits for an answer. Belongs to one event loop and one process; used
in another one, it begins anew there.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from taskd.client import operations, session, stand_in
from taskd.client.address import Address
from taskd.client.change_operations import ChangeOperations
from taskd.client.operations import Handle, Operations
from taskd.client.records import task_info
from taskd.client.schedule_operations import ScheduleOperations
from taskd.client.session import NOT_REPEATED, PATIENCE, Asked, Patience, Reached, Session
from taskd.client.submit_operations import SubmitOperations
from taskd.errors import Busy, Error, NotAllowed, Refused

if TYPE_CHECKING:
    from taskd.client.operations import Steps
    from taskd.client.records import AttemptInfo, Event, TaskInfo

T = TypeVar("T")

_CHUNK = 262144


class AsyncTaskHandle(Handle):
    """A task by its ``id``; see ``TaskHandle`` for what each method does."""

    __slots__ = ()
    _client: AsyncClient

    async def status(self) -> TaskInfo:
        """How it is now."""
        return await self._client.task(self.id)

    async def attempts(self) -> list[AttemptInfo]:
        """Its attempts so far, in order (see ``Client.attempts``)."""
        return await self._client.attempts(self.id)

    async def wait(self, timeout: float | None = None) -> TaskInfo:
        """Wait until it is settled (ended or held). Raises TimeoutError after ``timeout`` s."""
        return (await self._client.wait([self.id], timeout))[0]

    async def result(self, timeout: float | None = None) -> Any:
        """What it returned. Raises TaskFailed, TaskHeld, TaskCancelled or TimeoutError."""
        return (await self.wait(timeout)).outcome()

    def follow(self, after: int | Event = 0, progress: bool = False) -> AsyncIterator[Event]:
        """Its events after ``after`` until it is settled (see ``Client.follow``)."""
        return self._client.follow([self.id], after, progress)

    async def cancel(self) -> dict[str, Any]:
        """Cancel it; answers {state, was}."""
        return await self._client.cancel(self.id)

    async def retry(self) -> dict[str, Any]:
        """Queue it again if it is held, failed or cancelled; answers {state}."""
        return await self._client.retry(self.id)


class AsyncClient(
    Operations[AsyncTaskHandle],
    SubmitOperations[AsyncTaskHandle],
    ChangeOperations,
    ScheduleOperations,
):
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
        self._stand_in = stand_in.current()
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
            raise session.still_running([task for task in ids if task not in settled]) from None
        return [settled[task] for task in ids]

    def follow(
        self, tasks: Iterable[int], after: int | Event = 0, progress: bool = False
    ) -> AsyncIterator[Event]:
        """The tasks' events after the event ``after`` (or its number), as they come, until all
        are settled.

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
        if (instead := stand_in.current() or self._stand_in) is not None:
            return instead.answer(asked)
        if asked.op not in NOT_REPEATED:
            return await self._link.run(asked, self._timeout)
        link = self._new_link()
        try:
            return await link.run(asked, None)
        finally:
            await link.close()

    async def _stream(self, asked: Asked) -> AsyncIterator[dict[str, Any]]:
        if (instead := stand_in.current() or self._stand_in) is not None:
            for item in instead.items(asked) if asked.fields["tasks"] else ():
                yield item
        elif asked.fields["tasks"]:
            async for item in self._link.stream(asked):
                yield item

    def _new_link(self) -> AsyncLink:
        return AsyncLink(self._socket, Patience(self._timeout, self._reached))


class AsyncLink:
    """Invariants: ``_pump`` is the only reader and the only one that connects; ``_writer`` is None
    while there is no connection, ``_trouble`` then says why, if a try has failed; ``_why_lost`` is
    why the daemon ended the last one, if it said so; ``_news`` has an event for each request that
    a caller awaits; ``_home`` is the process and the event loop of all these.
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
        if asked.op in session.DEPLOYS and self._writer is not None:
            self._writer.close()  # the next request asks for the version that is spoken now
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
        """Close the connection; what still waits on it fails."""
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
        """Connect and read, until no request waits any more when the connection is lost."""
        try:
            while self._session.waiting:
                reader = await self._connect()
                try:
                    await self._read(reader)
                finally:
                    if self._writer is not None:
                        self._writer.close()
                        self._writer = None
                    self._tell(self._session.lost())
                if self._session.waiting:
                    self._patience.lost()
                    await self._pause(self._why_lost or session.connection_lost(self._address.log))
        except Error as error:
            self._tell(self._session.fail(error))
        except Exception as error:  # a bug of ours; its callers must not wait for ever
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

        Raises ProtocolError if the daemon broke the protocol, NotAllowed if it refuses our user.
        """
        self._why_lost = None
        while True:
            try:
                data = await reader.read(_CHUNK)
            except OSError:
                return
            if not data:
                return
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


def _here() -> tuple[int, asyncio.AbstractEventLoop]:
    return os.getpid(), asyncio.get_running_loop()

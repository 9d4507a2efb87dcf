"""The connection of an ``AsyncClient``, made again whenever it is lost.

Shared by all requests and streams of the client. A task of the event loop, the pump, connects and
reads as long as a request waits for an answer.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from typing import Any

from taskd.client import session
from taskd.client.address import Address
from taskd.client.session import Asked, Patience, Session
from taskd.errors import Busy, Error, NotAllowed

_CHUNK = 262144


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

"""One connection to the daemon and nothing around it: no reconnecting, no re-sending.

With it a test sees what the library would hide: a lost connection is an error here.
"""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress
from typing import Any

from taskd.posix import sockets
from taskd.protocol import data
from taskd.protocol.client_side import (
    ClientEvent,
    ClientSide,
    End,
    Goodbye,
    Item,
    Refusal,
    Reply,
    Welcome,
)
from taskd.protocol.control import NEWEST


class Raw:
    """A connection whose hello is done; ``welcome`` is the daemon's. ``newest``: the version of the
    protocol that it speaks."""

    def __init__(self, path: str, within: float = 60.0, newest: int = NEWEST) -> None:
        self.socket = sockets.connect(path)
        self.socket.settimeout(within)
        self._side = ClientSide()
        self._waiting: deque[ClientEvent] = deque()
        with suppress(BrokenPipeError):  # who is turned away hears why
            self.send(self._side.hello(newest))
        welcome = self.event()
        if isinstance(welcome, Goodbye):
            raise welcome.error
        assert isinstance(welcome, Welcome), welcome
        self.welcome = welcome

    def send(self, raw: bytes) -> None:
        self.socket.sendall(raw)

    def event(self) -> ClientEvent:
        """The next event that came. Raises ConnectionError at the end of the connection."""
        while (event := self._side.next()) is None:
            received = self.socket.recv(262144)
            if not received:
                raise ConnectionError("the daemon closed the connection")
            self._side.feed(received)
        return event

    def start(self, op: str, **fields: Any) -> int:
        """Send a request; its id."""
        number, raw = self._side.request(op, fields)
        self.send(raw)
        return number

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """Send a request and give its reply. Raises what it is refused with."""
        return self.reply_to(self.start(op, **fields))

    def reply_to(self, number: int) -> dict[str, Any]:
        while True:
            event = self._next_of(number)
            if isinstance(event, Reply):
                return event.ok
            assert isinstance(event, Refusal), event
            raise event.error

    def items(self, number: int) -> list[dict[str, Any]]:
        """The items of a stream, to its end."""
        found = []
        while not isinstance(event := self._next_of(number), End):
            assert isinstance(event, Item), event
            found.append(event.fields)
        return found

    def _next_of(self, number: int) -> ClientEvent:
        for event in self._waiting:
            if getattr(event, "id", None) == number:
                self._waiting.remove(event)
                return event
        while getattr(event := self.event(), "id", None) != number:
            self._waiting.append(event)
        return event

    def submit(self, name: str, **args: Any) -> int:
        """Its id; on disk once this returns."""
        task = {"submission": os.urandom(16), "name": name, "args": data.encode(args)}
        return int(self.ask("submit", tasks=[task])["tasks"][0]["id"])

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

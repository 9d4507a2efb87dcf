"""One connection of the master: bytes in and out, watched by the loop, carried over an exec.

Knows frames, not what they mean. An exec carries the bytes that were read and are not yet handled
(``Messages.unread``), and those that are not yet sent (``Wire.unsent``).
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from taskd.errors import ProtocolError
from taskd.master.loop.loop import AGAIN, READ, TRIED_AGAIN, WRITE, Loop
from taskd.master.loop.trouble import PASSING
from taskd.protocol import frames
from taskd.protocol.worker import check
from taskd.upgrade.snapshot import Carried

_CHUNK = 262144

OUT_BOUND = 256 * 1024
"""Unsent bytes above which streams pause, and nothing more is read from a client."""


class Later(Exception):
    """A message cannot be handled yet: ``when(retry)`` has ``retry`` called once it may be."""

    def __init__(self, when: Callable[[Callable[[], None]], None]) -> None:
        super().__init__()
        self.when = when


class Wire:
    """A socket with a buffer of bytes to send. Reads nothing before the first ``watch``.

    ``on_data``: called in the loop with bytes that were read. ``on_lost``: the connection ended and
    is closed. ``on_drained``: the unsent bytes fell below the bound again. ``unsent``: bytes that
    the socket has not taken yet.
    """

    __slots__ = ("_loop", "_paused", "_sock", "on_data", "on_drained", "on_lost", "unsent")

    def __init__(self, loop: Loop, sock: socket.socket, unsent: bytes = b"") -> None:
        sock.setblocking(False)
        self._loop = loop
        self._sock = sock
        self._paused = False
        self.unsent = bytearray(unsent)
        self.on_data: Callable[[bytes], None] = _nothing
        self.on_lost: Callable[[], None] = _nothing
        self.on_drained: Callable[[], None] = _nothing

    @property
    def fd(self) -> int:
        return self._sock.fileno()

    @property
    def is_full(self) -> bool:
        return len(self.unsent) > OUT_BOUND

    @property
    def is_closed(self) -> bool:
        return self._sock.fileno() < 0

    @property
    def is_hung_up(self) -> bool:
        """The peer has closed the connection and sent nothing that is still to be read. Known also
        while the wire is paused."""
        try:
            return not self._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def watch(self) -> None:
        """Have the loop read from the socket unless paused, and send what is unsent."""
        if not self.is_closed:
            events = (0 if self._paused else READ) | (WRITE if self.unsent else 0)
            self._loop.watch(self.fd, events, self._on_ready)

    def pause(self, paused: bool) -> None:
        """Stop reading (True) or read again (False)."""
        if paused != self._paused:
            self._paused = paused
            self.watch()

    def send(self, data: bytes) -> None:
        """Send now what the socket takes, the rest when it is ready."""
        if self.is_closed:
            return
        if not self.unsent:
            data = data[self._write(data) :]
        if data and not self.is_closed:
            self.unsent += data
            self.watch()

    def close(self) -> None:
        """Close without telling ``on_lost``."""
        if not self.is_closed:
            self._loop.watch(self.fd, 0, self._on_ready)
            self._sock.close()

    def _write(self, data: bytes | bytearray) -> int:
        try:
            return self._sock.send(data, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return 0
        except OSError:
            self._loop.soon(self._lose)  # not from inside ``send``: its caller still uses the wire
            return 0

    def _on_ready(self, events: int) -> None:
        if events & WRITE:
            was_full = self.is_full
            del self.unsent[: self._write(self.unsent)]
            if not self.unsent:
                self.watch()
            if was_full and not self.is_full:
                self.on_drained()
        if events & READ:
            self.look()

    def look(self) -> None:
        """Read once what the peer has sent, unless paused, without waiting for the loop."""
        if not self.is_closed and not self._paused:
            self._read()

    def drain(self) -> None:
        """The peer is dead: read all that it has sent, also if paused, and close."""
        while not self.is_closed:
            self._read(is_peer_dead=True)

    def _read(self, is_peer_dead: bool = False) -> None:
        try:
            data = self._sock.recv(_CHUNK)
        except OSError as error:
            if isinstance(error, (BlockingIOError, InterruptedError)) and not is_peer_dead:
                return
            data = b""
        if data:
            self._call(lambda: self.on_data(data))
        else:  # the end of the stream
            self._lose()

    def _call(self, handler: Callable[[], None]) -> None:
        try:
            handler()
        except ProtocolError:
            self._lose()  # the peer loses its connection, and nothing else

    def retry(self, error: BaseException, handler: Callable[[], None]) -> None:
        """``handler`` met ``error``: read nothing, and call it again when a Later says so, or after
        AGAIN seconds for a transient error."""
        self.pause(True)
        if isinstance(error, Later):
            error.when(lambda: self._call(handler))
        else:
            self._loop.troubles.tell(TRIED_AGAIN, error)
            self._loop.after(AGAIN, lambda: self._call(handler))

    def _lose(self) -> None:
        if not self.is_closed:
            self.close()
            self.on_lost()


class Messages:
    """A Wire that speaks whole messages: the master's end of a zygote's or worker's channel.

    A message whose handler meets a transient error or raises Later is handled again later, and no
    message behind it before that; an exec carries it.
    """

    __slots__ = ("_decoder", "_put_off", "on_message", "wire")

    def __init__(self, wire: Wire, unread: bytes = b"") -> None:
        self.wire = wire
        self._decoder = frames.Decoder()
        self._decoder.feed(unread)
        self._put_off: dict[str, object] | None = None
        self.on_message: Callable[[dict[str, object]], None] = _nothing
        wire.on_data = self.pump

    @property
    def unread(self) -> bytes:
        """The message that is to be handled again, and what came behind it."""
        first = b"" if self._put_off is None else frames.encode(self._put_off)
        return first + self._decoder.rest

    def export(self, carried: Carried) -> list[list[int]]:
        """For the snapshot: where the unread bytes and the unsent bytes are. The next image makes a
        Wire and its Messages from them."""
        return [carried.put(self.unread), carried.put(bytes(self.wire.unsent))]

    def send(self, message: dict[str, object]) -> None:
        self.wire.send(frames.encode(message))

    def pump(self, data: bytes = b"") -> None:
        """Take ``data``, and handle the whole messages that have come. Raises ProtocolError."""
        self._decoder.feed(data)
        while not self.wire.is_closed and self._put_off is None:
            if (message := self._decoder.next()) is None:
                return
            self._deliver(message)

    def _deliver(self, message: dict[str, object]) -> None:
        check(message)
        try:
            self.on_message(message)
        except (*PASSING, Later) as error:
            self._put_off = message
            self.wire.retry(error, self._retry)

    def _retry(self) -> None:
        message, self._put_off = self._put_off, None
        if message is not None and not self.wire.is_closed:
            self.wire.pause(False)
            self._deliver(message)
            self.pump()


def _nothing(*_: object) -> None: ...

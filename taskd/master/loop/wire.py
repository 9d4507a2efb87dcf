"""One connection of the master: bytes in and out, watched by the loop, carried over an exec.

Knows frames, not what they mean. ``carried`` is what an exec must not lose: bytes that were read
and make no whole frame yet, and bytes that are not yet sent.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from taskd.errors import ProtocolError
from taskd.master.loop.loop import AGAIN, READ, SHORT, WRITE, Loop
from taskd.master.loop.trouble import PASSING
from taskd.protocol import frames
from taskd.protocol.worker import check
from taskd.upgrade.snapshot import Carried

_CHUNK = 262144

OUT_BOUND = 256 * 1024
"""Unsent bytes above which streams pause, and nothing more is read from a client."""


class Later(Exception):
    """A message cannot be handled yet: ``when(again)`` has ``again`` called once it may be."""

    def __init__(self, when: Callable[[Callable[[], None]], None]) -> None:
        super().__init__()
        self.when = when


class Wire:
    """``on_data(bytes)`` and ``on_lost()`` are called in the loop; after ``on_lost`` it is closed.

    ``on_drained`` is called when unsent bytes fell below the bound again.
    """

    __slots__ = ("_loop", "_out", "_paused", "_sock", "on_data", "on_drained", "on_lost")

    def __init__(self, loop: Loop, sock: socket.socket, unsent: bytes = b"") -> None:
        sock.setblocking(False)
        self._loop = loop
        self._sock = sock
        self._out = bytearray(unsent)
        self._paused = False
        self.on_data: Callable[[bytes], None] = _ignore
        self.on_lost: Callable[[], None] = _nothing
        self.on_drained: Callable[[], None] = _nothing

    @property
    def fd(self) -> int:
        return self._sock.fileno()

    @property
    def unsent(self) -> bytes:
        return bytes(self._out)

    @property
    def waiting(self) -> int:
        """How many bytes ``unsent`` has."""
        return len(self._out)

    @property
    def is_full(self) -> bool:
        return len(self._out) > OUT_BOUND

    @property
    def is_closed(self) -> bool:
        return self._sock.fileno() < 0

    @property
    def is_hung_up(self) -> bool:
        """The peer has gone, and had sent nothing more before; also while nothing is read."""
        try:
            return not self._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def start(self) -> None:
        """Begin to read, and to send what was carried here."""
        self._watch()

    def pause(self, paused: bool) -> None:
        """Stop reading (True) or read again (False)."""
        if paused != self._paused:
            self._paused = paused
            self._watch()

    def send(self, data: bytes) -> None:
        """Send now what the socket takes, the rest when it is ready."""
        if self.is_closed:
            return
        if not self._out:
            data = data[self._write(data) :]
        if data and not self.is_closed:
            self._out += data
            self._watch()

    def close(self) -> None:
        """Close without telling ``on_lost``."""
        if not self.is_closed:
            self._loop.watch(self.fd, 0, self._on_ready)
            self._sock.close()

    def _watch(self) -> None:
        if not self.is_closed:
            events = (0 if self._paused else READ) | (WRITE if self._out else 0)
            self._loop.watch(self.fd, events, self._on_ready)

    def _write(self, data: bytes | bytearray) -> int:
        try:
            return self._sock.send(data, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return 0
        except OSError:
            self._loop.soon(self._lose)  # not from inside a send: the caller still uses us
            return 0

    def _on_ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if events & READ and not self.is_closed and not self._paused:
            self._read()

    def _flush(self) -> None:
        was_full = self.is_full
        del self._out[: self._write(self._out)]
        if not self._out:
            self._watch()
        if was_full and not self.is_full:
            self.on_drained()

    def look(self) -> None:
        """Read what is there now, without waiting for our turn."""
        if not self.is_closed and not self._paused:
            self._read()

    def _read(self) -> None:
        try:
            data = self._sock.recv(_CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        self._deliver(data)

    def _deliver(self, data: bytes) -> None:
        """What was read; nothing is the end of the stream."""
        if not data:
            self._lose()
        else:
            self._hear(lambda: self.on_data(data))

    def _hear(self, take: Callable[[], None]) -> None:
        try:
            take()
        except ProtocolError:
            self._lose()  # it loses its own connection and nothing else

    def put_off(self, error: BaseException, action: Callable[[], None]) -> None:
        """``action`` failed for something that passes: again after a while, and read nothing until
        then."""
        self._loop.troubles.tell(SHORT, error)
        self.pause(True)
        self._loop.after(AGAIN, lambda: self._hear(action))

    def put_off_until(self, later: Later, action: Callable[[], None]) -> None:
        """As ``put_off``, until ``later`` says so."""
        self.pause(True)
        later.when(lambda: self._hear(action))

    def drain(self) -> None:
        """The peer is dead: take all that it has sent, to the end of the stream."""
        while not self.is_closed:
            try:
                data = self._sock.recv(_CHUNK)
            except OSError:
                data = b""
            self._deliver(data)

    def _lose(self) -> None:
        if not self.is_closed:
            self.close()
            self.on_lost()


class Messages:
    """A Wire that speaks whole messages: the master's end of a zygote's or worker's channel.

    A message whose handler fails for something that passes, or raises Later, is handled again after
    a while, and nothing that came behind it before that; an exec carries it.
    """

    __slots__ = ("_decoder", "_put_off", "on_message", "wire")

    def __init__(self, wire: Wire, unread: bytes = b"") -> None:
        self.wire = wire
        self._decoder = frames.Decoder()
        self._decoder.feed(unread)
        self._put_off: dict[str, object] | None = None
        self.on_message: Callable[[dict[str, object]], None] = _ignore_message
        wire.on_data = self._feed

    @property
    def unread(self) -> bytes:
        first = b"" if self._put_off is None else frames.encode(self._put_off)
        return first + self._decoder.rest

    def export(self, carried: Carried) -> list[list[int]]:
        """For the snapshot: where its bytes are, [those that are unread, those that are unsent].
        Another one is made from them with a Wire of its own."""
        return [carried.put(self.unread), carried.put(self.wire.unsent)]

    def send(self, message: dict[str, object]) -> None:
        self.wire.send(frames.encode(message))

    def _feed(self, data: bytes) -> None:
        self._decoder.feed(data)
        self.pump()

    def pump(self) -> None:
        """Deliver the whole messages that are here."""
        while not self.wire.is_closed and (message := self._next()) is not None:
            self._deliver(message)

    def _next(self) -> dict[str, object] | None:
        return None if self._put_off is not None else self._decoder.next()

    def _deliver(self, message: dict[str, object]) -> None:
        check(message)
        try:
            self.on_message(message)
        except PASSING as error:
            self._put_off = message
            self.wire.put_off(error, self._again)
        except Later as later:
            self._put_off = message
            self.wire.put_off_until(later, self._again)

    def _again(self) -> None:
        message, self._put_off = self._put_off, None
        if message is not None and not self.wire.is_closed:
            self.wire.pause(False)
            self._deliver(message)
            self.pump()


def _ignore(_: bytes) -> None: ...


def _ignore_message(_: dict[str, object]) -> None: ...


def _nothing() -> None: ...

"""Length-prefixed messages: four bytes of length (big-endian), then one CBOR map without tags.

Used by every process that speaks over a socket. The map's keys, at every level, are text; its
nesting is at most cbor.DEPTH, lengths are definite, no key stands twice. Other bytes are a
ProtocolError and end the use of the connection: a Decoder that has raised once always raises. A
length of 0 or above the limit is refused as soon as it is known, before its body comes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cbor2 import dumps

from taskd.errors import ProtocolError
from taskd.protocol import cbor

LIMIT = 2 * 1024 * 1024
"""Bytes in one frame's body at most."""

_HEAD = 4

dumps([])  # cbor2 imports a module for its first list; it could not at the interpreter's exit, when
# clients' destructors and exit handlers may still submit

_TEXT = frozenset((str,))


def encode(message: dict[str, Any]) -> bytes:
    """One frame. Raises errors.ProtocolError if the body passes LIMIT."""
    body = dumps(message)
    if len(body) > LIMIT:
        raise ProtocolError(f"a message of {len(body):,} bytes; at most {LIMIT:,} fit in a frame")
    return len(body).to_bytes(_HEAD, "big") + body


class Decoder:
    """Bytes in, messages out; keeps a partial frame until the rest of it comes.

    ``rest`` is what was fed and not yet returned: it is carried over an exec and fed again.
    Invariant: ``_start`` is where the next frame's length begins in ``_buffer``; the bytes before
    it have been returned, and ``feed`` deletes them.
    """

    __slots__ = ("_broken", "_buffer", "_limit", "_start")

    def __init__(self, limit: int = LIMIT) -> None:
        self._buffer = bytearray()
        self._start = 0
        self._limit = limit
        self._broken: str | None = None

    def feed(self, data: bytes) -> None:
        """Take in what was read from the connection."""
        if self._start:
            del self._buffer[: self._start]
            self._start = 0
        self._buffer += data

    def next(self) -> dict[str, Any] | None:
        """The next whole message, or None. Raises errors.ProtocolError for a broken one."""
        if self._broken is not None:
            raise ProtocolError(self._broken)
        begin = self._start + _HEAD
        if len(self._buffer) < begin:
            return None
        length = int.from_bytes(self._buffer[self._start : begin], "big")
        try:
            if not 0 < length <= self._limit:
                allowed = f"1 to {self._limit:,}"
                raise ProtocolError(f"a frame of {length:,} bytes; allowed are {allowed}")
            if len(self._buffer) < begin + length:
                return None
            self._start = begin + length
            return _decode(bytes(self._buffer[begin : self._start]))
        except ProtocolError as error:
            self._broken = str(error)
            raise

    @property
    def size(self) -> int:
        """How many bytes ``rest`` has."""
        return len(self._buffer) - self._start

    @property
    def rest(self) -> bytes:
        return bytes(self._buffer[self._start :])


def _check_keys(value: Mapping[Any, Any], hashable: bool) -> Mapping[Any, Any]:
    if hashable or not _TEXT.issuperset(map(type, value)):
        raise ValueError("a key that is not text")
    return value


def _decode(body: bytes) -> dict[str, Any]:
    try:
        message = cbor.decode(body, on_map=_check_keys)
    except ProtocolError as error:
        raise ProtocolError(f"a broken frame: {error}") from None
    if type(message) is not dict:
        raise ProtocolError("a frame that holds no map")
    return message

"""The client's end of the client protocol; ``control`` is its specification.

Pure; runs in clients. Requests in, bytes out; bytes in, events out.
"""

from __future__ import annotations

from typing import Any

from taskd.errors import Error, ProtocolError, Refused, refusal
from taskd.protocol import frames
from taskd.protocol.control import NEWEST, OLDEST, Call, Calls, Turn
from taskd.protocol.operations import check
from taskd.record import Record


class Welcome(Record):
    """The daemon's hello."""

    version: int
    taskd: str
    uid: int
    control: bool


class Reply(Record):
    """The request is done (or its stream is open)."""

    id: int
    ok: dict[str, Any]


class Refusal(Record):
    """The request was refused, or its stream could not go on."""

    id: int
    error: Refused


class Item(Record):
    """One item of a stream."""

    id: int
    fields: dict[str, Any]


class End(Record):
    """A stream is over."""

    id: int
    fields: dict[str, Any]


class Goodbye(Record):
    """The daemon ends the connection and says why."""

    error: Error


ClientEvent = Welcome | Reply | Refusal | Item | End | Goodbye


class ClientSide:
    """A client's end of one connection: requests in, bytes out; bytes in, events out.

    Send ``hello()`` first. ``next`` raises ProtocolError when the daemon breaks the protocol.
    Invariant: ``_turn`` is the id whose reply comes next.
    """

    __slots__ = ("_calls", "_decoder", "_next", "_turn", "_welcomed")

    def __init__(self) -> None:
        self._decoder = frames.Decoder()
        self._calls = Calls()
        self._next = 1
        self._turn = 1
        self._welcomed = False

    def hello(self, newest: int = NEWEST) -> bytes:
        return frames.encode({"hello": {"low": OLDEST, "high": newest}})

    def request(self, op: str, fields: dict[str, Any]) -> tuple[int, bytes]:
        """Its id and the bytes to send. Raises ProtocolError for fields that are not allowed."""
        checked = check(op, fields)
        number = self._next
        data = frames.encode({"id": number, "op": op, **checked})
        target = checked.get("stream") if op == "stop" else None
        if target is not None:
            self._calls.stop(target)
        self._calls[number] = Call(op, target)
        self._next += 1
        return number, data

    def feed(self, data: bytes) -> None:
        self._decoder.feed(data)

    def next(self) -> ClientEvent | None:
        """The next event, or None until more is fed."""
        message = self._decoder.next()
        if message is None:
            return None
        if "id" not in message and "error" in message:
            code, text = _code_and_message(_map(message, "error"))
            is_breach = code == ProtocolError.code
            return Goodbye(ProtocolError(text) if is_breach else refusal(code, text))
        if not self._welcomed:
            hello = _map(message, "hello")
            version, taskd, uid = hello.get("version"), hello.get("taskd"), hello.get("uid")
            if type(version) is not int or not OLDEST <= version <= NEWEST:
                raise ProtocolError(f"the daemon chose version {str(version)[:30]} of the protocol")
            if type(taskd) is not str or type(uid) is not int:
                raise ProtocolError("the daemon's hello lacks its version or the user")
            self._welcomed = True
            return Welcome(version, taskd, uid, hello.get("control") is True)
        return self._take(message)

    def _take(self, message: dict[str, Any]) -> Reply | Refusal | Item | End:
        number = message.get("id")
        if type(number) is not int:
            raise ProtocolError("a message without the id of a request")
        what = next((each for each in ("ok", "item", "end") if each in message), "error")
        fields = _map(message, what)
        if what == "ok" or (what == "error" and number >= self._turn):
            if number != self._turn:
                raise ProtocolError(f"a reply to request {number}; the next one is to {self._turn}")
            self._turn += 1
        try:
            if what == "ok":
                self._calls.answer(number)
                return Reply(number, fields)
            self._calls.advance(number, Turn(what))
        except LookupError as error:
            raise ProtocolError(str(error)) from None
        if what == "error":
            return Refusal(number, refusal(*_code_and_message(fields)))
        return Item(number, fields) if what == "item" else End(number, fields)


def _map(message: dict[str, Any], name: str) -> dict[str, Any]:
    value = message.get(name)
    if type(value) is not dict:
        raise ProtocolError(f"a message whose {name} is missing or not a map")
    return value


def _code_and_message(error: dict[str, Any]) -> tuple[str, str]:
    code, message = error.get("code"), error.get("message")
    if type(code) is not str or type(message) is not str:
        raise ProtocolError("an error without a code and a message")
    return code, message

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

    def hello(self) -> bytes:
        return frames.encode({"hello": {"low": OLDEST, "high": NEWEST}})

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
            return Goodbye(_error(_map(message, "error")))
        if not self._welcomed:
            return self._take_hello(_map(message, "hello"))
        return self._take(message)

    def _take_hello(self, hello: dict[str, Any]) -> Welcome:
        version, taskd, uid = hello.get("version"), hello.get("taskd"), hello.get("uid")
        if type(version) is not int or not OLDEST <= version <= NEWEST:
            raise ProtocolError(f"the daemon chose version {str(version)[:30]} of the protocol")
        if type(taskd) is not str or type(uid) is not int:
            raise ProtocolError("the daemon's hello lacks its version or the user")
        self._welcomed = True
        return Welcome(version, taskd, uid, hello.get("control") is True)

    def _take(self, message: dict[str, Any]) -> Reply | Refusal | Item | End:
        number = message.get("id")
        if type(number) is not int:
            raise ProtocolError("a message without the id of a request")
        try:
            if "ok" in message:
                return self._take_ok(number, _map(message, "ok"))
            if "item" in message:
                self._calls.advance(number, Turn.ITEM)
                return Item(number, _map(message, "item"))
            if "end" in message:
                self._calls.advance(number, Turn.END)
                return End(number, _map(message, "end"))
            return self._take_error(number, _map(message, "error"))
        except LookupError as error:
            raise ProtocolError(str(error)) from None

    def _take_ok(self, id: int, ok: dict[str, Any]) -> Reply:
        self._expect(id)
        self._calls.answer(id)
        return Reply(id, ok)

    def _take_error(self, id: int, error: dict[str, Any]) -> Refusal:
        if id >= self._turn:
            self._expect(id)
        self._calls.advance(id, Turn.ERROR)
        return Refusal(id, refusal(*_code_and_message(error)))

    def _expect(self, id: int) -> None:
        if id != self._turn:
            raise ProtocolError(f"a reply to request {id}; the next one is to {self._turn}")
        self._turn += 1


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


def _error(error: dict[str, Any]) -> Error:
    code, message = _code_and_message(error)
    return ProtocolError(message) if code == ProtocolError.code else refusal(code, message)

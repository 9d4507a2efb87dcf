"""The daemon's end of the client protocol; ``control`` is its specification.

Pure; runs in the master. Bytes in, events out; answers in, bytes out.
"""

from __future__ import annotations

from typing import Any

from taskd.errors import Error, ProtocolError, Refused
from taskd.protocol import frames
from taskd.protocol.control import (
    CONNECTION,
    HELD_BOUND,
    MAX_PENDING,
    MAX_STREAMS,
    NEWEST,
    OLDEST,
    Call,
    Calls,
    Phase,
    Stage,
    Step,
    Turn,
)
from taskd.protocol.operations import OPERATIONS, STREAMS, check
from taskd.record import Record

MESSAGE = 64 * 1024
"""Characters of an error that are told."""


class Hello(Record):
    """The peer said hello; ``version`` is what both speak. Answer with ``welcome``."""

    version: int


class Request(Record):
    """One request; ``fields`` are checked, the unknown ones left out."""

    id: int
    op: str
    fields: dict[str, Any]


class Answer(Record):
    """An answer that this side has made by itself: send the bytes."""

    data: bytes


class Farewell(Record):
    """Client and daemon speak no common version: send the bytes, then close the connection."""

    data: bytes


ServerEvent = Hello | Request | Answer | Farewell


def farewell(error: Error) -> bytes:
    """The last frame of a connection that the daemon ends."""
    return frames.encode({"error": {"code": error.code, "message": str(error)}})


class ServerSide:
    """The daemon's end of one connection: bytes in, events out; answers in, bytes out.

    ``feed`` what was read, then take events by ``next`` until it says None; after answers that
    made room (``is_full`` was True), call ``next`` again. ``next`` raises ProtocolError when the
    peer breaks the protocol: send ``farewell(error)`` and close. ``reply``, ``refuse``, ``item``
    and ``end`` return the bytes to send now, often none, since a reply waits here for those
    before it; a call that does not fit the request's stage is a bug of the caller (LookupError).

    ``calls``: the requests without an answer and the open streams, by id; others only read it.

    Invariants: the replies to ids below ``_turn`` have been sent; ids from ``_turn`` to ``_next``
    are pending; ``_held`` has the bytes of pending ones that wait for their turn, and each id in
    it has its reply among them.
    """

    __slots__ = (
        "_decoder",
        "_held",
        "_held_bytes",
        "_next",
        "_phase",
        "_turn",
        "calls",
        "version",
    )

    def __init__(self) -> None:
        self._decoder = frames.Decoder()
        self._phase = Phase.NEW
        self.version = NEWEST
        self._next = 1
        self._turn = 1
        self._held: dict[int, bytes] = {}
        self._held_bytes = 0
        self.calls = Calls()

    def feed(self, data: bytes) -> None:
        self._decoder.feed(data)

    def next(self) -> ServerEvent | None:
        """The next event, or None until more is fed or, if ``is_full``, answered."""
        if self.is_full:
            return None
        message = self._decoder.next()
        if message is None:
            return None
        return self._greet(message) if self._phase is Phase.NEW else self._ask(message)

    def put_back(self, request: Request) -> None:
        """As if ``request`` had not been read yet: ``next`` gives it again, perhaps in the next
        image. It is the last that ``next`` has given, has no answer, and is no ``stop``."""
        assert request.id == self._next - 1 and request.id not in self._held
        rest = self._decoder.rest
        self._decoder = frames.Decoder()
        self._decoder.feed(frames.encode({"id": request.id, "op": request.op} | request.fields))
        self._decoder.feed(rest)
        self._next -= 1
        del self.calls[request.id]

    def let_go(self) -> None:
        """Free what was fed, and the replies that wait: the connection is closed."""
        self._decoder = frames.Decoder()
        self._held.clear()
        self._held_bytes = 0

    @property
    def pending(self) -> int:
        """How many requests have no reply sent yet."""
        return self._next - self._turn

    @property
    def is_full(self) -> bool:
        """Whether so much waits for replies that nothing more is to be read."""
        return self.pending >= MAX_PENDING or self._held_bytes > HELD_BOUND

    @property
    def held(self) -> int:
        """Bytes that this side keeps: those fed and not yet returned, and replies that wait."""
        return self._decoder.size + self._held_bytes

    @property
    def awaits_more(self) -> bool:
        """Whether the peer has yet to say hello, or the rest of what it began to say."""
        return self._phase is Phase.NEW or self._decoder.size > 0

    def welcome(self, uid: int, control: bool, taskd: str) -> bytes:
        """The answer to Hello: who the peer is to the daemon, and the daemon's own version."""
        self._move(Step.WELCOME)
        return frames.encode(
            {"hello": {"version": self.version, "taskd": taskd, "uid": uid, "control": control}}
        )

    def reply(self, id: int, ok: dict[str, Any], short: dict[str, Any] | None = None) -> bytes:
        """The request is done (or, of ``follow`` and ``wait``, its stream is open).

        ``short``: sent where ``ok`` does not fit in a frame, for a request that has done something:
        an error would say that it had failed. A request without ``short`` is refused then.
        """
        try:
            data = frames.encode({"id": id, "ok": ok})
        except ProtocolError as error:
            if short is not None:
                return self.reply(id, short)
            return self.refuse(id, Refused(f"the answer does not fit: {error}"))
        self.calls.answer(id)
        return self._in_turn(id, data)

    def refuse(self, id: int, error: Refused) -> bytes:
        """The request is refused, or its open stream cannot go on."""
        self.calls.advance(id, Turn.ERROR)
        fields = {"code": error.code, "message": str(error)[:MESSAGE]}
        return self._in_turn(id, frames.encode({"id": id, "error": fields}))

    def item(self, id: int, fields: dict[str, Any]) -> bytes:
        """One item of an open stream."""
        data = frames.encode({"id": id, "item": fields})
        self.calls.advance(id, Turn.ITEM)
        return self._in_turn(id, data)

    def end(self, id: int, fields: dict[str, Any]) -> bytes:
        """The open stream is over."""
        self.calls.advance(id, Turn.END)
        return self._in_turn(id, frames.encode({"id": id, "end": fields}))

    @property
    def rest(self) -> bytes:
        """Bytes that were fed and not yet returned as events."""
        return self._decoder.rest

    def export(self) -> dict[str, Any]:
        """All but ``rest``, as plain maps, lists, text, ints and bytes: for a handoff."""
        return {
            "phase": self._phase.value,
            "version": self.version,
            "next": self._next,
            "turn": self._turn,
            "held": [[number, data] for number, data in self._held.items()],
            "calls": [
                [number, call.op, call.stage.value, call.target]
                for number, call in self.calls.items()
            ],
        }

    @classmethod
    def restore(cls, state: dict[str, Any], rest: bytes = b"") -> ServerSide:
        """The side that ``export`` and ``rest`` describe."""
        side = cls()
        side._phase = Phase(state["phase"])
        side.version = state.get("version", OLDEST)  # 0.2 tells none, and spoke no other
        side._next, side._turn = state["next"], state["turn"]
        side._held = dict(state["held"])
        side._held_bytes = sum(map(len, side._held.values()))
        for number, op, stage, target in state["calls"]:
            call = side.calls[number] = Call(op, target)
            call.stage = Stage(stage)
        side.feed(rest)
        return side

    def _move(self, step: Step) -> None:
        phase = CONNECTION.get((self._phase, step))
        if phase is None:
            raise ProtocolError(f"a {step.value} on a connection that is {self._phase.value}")
        self._phase = phase

    def _greet(self, message: dict[str, Any]) -> Hello | Farewell:
        hello = message.get("hello")
        if type(hello) is not dict:
            raise ProtocolError("the first message must be a hello")
        low, high = hello.get("low"), hello.get("high")
        if type(low) is not int or type(high) is not int or low > high:
            raise ProtocolError("hello: low and high must be the versions that the client speaks")
        if high < OLDEST or low > NEWEST:
            why = (
                f"the client speaks versions {low} to {high} of the protocol, this daemon {OLDEST} "
                f"to {NEWEST}: use a client of the daemon's own version of taskd"
            )
            return Farewell(farewell(ProtocolError(why)))
        self._move(Step.HELLO)
        self.version = min(high, NEWEST)
        return Hello(self.version)

    def _ask(self, message: dict[str, Any]) -> Request | Answer:
        self._move(Step.REQUEST)
        number, op = message.get("id"), message.get("op")
        if type(number) is not int or number != self._next:
            raise ProtocolError(f"request {str(number)[:30]} came where {self._next} was due")
        if type(op) is not str:
            raise ProtocolError(f"request {number}: op must be text")
        refused, fields, target = None, {}, None
        if op not in OPERATIONS:
            refused = f"this daemon has no operation {op[:60]!r}"
        else:
            fields = check(op, message)
            streams = sum(call.op in STREAMS for call in self.calls.values())
            if op in STREAMS and streams >= MAX_STREAMS:
                refused = f"{MAX_STREAMS} streams are open; end some first"
        if op == "stop":
            target = fields["stream"]
            try:
                self.calls.stop(target)
            except LookupError as error:
                raise ProtocolError(f"stop: {error}") from None
        self.calls[number] = Call(op, target)
        self._next += 1
        if refused is not None:
            return Answer(self.refuse(number, Refused(refused)))
        return Request(number, op, fields)

    def _in_turn(self, id: int, data: bytes) -> bytes:
        """``data`` and what waited for it; or nothing if ``id`` has to wait itself."""
        if id < self._turn:
            return data  # of a stream that is open
        if id > self._turn:
            self._held[id] = self._held.get(id, b"") + data
            self._held_bytes += len(data)
            return b""
        parts = [data]
        self._turn += 1
        while self._turn in self._held:
            parts.append(self._held.pop(self._turn))
            self._held_bytes -= len(parts[-1])
            self._turn += 1
        return b"".join(parts)

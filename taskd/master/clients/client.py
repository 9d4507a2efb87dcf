"""One client's connection: heard, answered, and held up where others have their turn.

Requests take effect in their order: writes may be under way together (they are applied in order),
anything else waits for the writes before it.
"""

from __future__ import annotations

from typing import Any, Protocol

import taskd
from taskd.errors import Error, ProtocolError, Refused
from taskd.master.clients.peer_limits import MANY, TURN, USUAL, PeerLimits
from taskd.master.loop import Entry, Kind, Loop, Wire
from taskd.protocol import server_side as protocol
from taskd.upgrade.snapshot import Carried

WRITES = frozenset(("submit", "cancel", "retry"))
"""Operations that are answered once they are on disk."""

COUNTS = frozenset(("status", "revisions"))
"""Operations that count what everybody has."""


class Owner(Protocol):
    """Who holds all clients. ``is_paused``: none is read."""

    limits: PeerLimits
    is_paused: bool

    def carry_out(self, client: Client, request: protocol.Request) -> None: ...

    def on_answered(self) -> None: ...

    def on_drained(self, client: Client) -> None: ...

    def forget(self, client: Client) -> None: ...


class Client:
    """``number`` names it for good, also over an exec. ``is_control``: it came by control.sock and
    may do everything; ``uid`` owns what it submits."""

    __slots__ = (
        "_blocked",
        "_goes_on",
        "_loop",
        "_owner",
        "_writes",
        "is_control",
        "number",
        "side",
        "uid",
        "wire",
    )

    def __init__(
        self,
        loop: Loop,
        owner: Owner,
        number: int,
        wire: Wire,
        side: protocol.ServerSide,
        uid: int,
        is_control: bool,
    ) -> None:
        self._loop = loop
        self._owner = owner
        self.number = number
        self.wire = wire
        self.side = side
        self.uid = uid
        self.is_control = is_control
        self._writes = 0
        self._blocked: protocol.Request | None = None
        self._goes_on = False  # its next turn will come
        wire.on_data = self._on_data
        wire.on_lost = lambda: owner.forget(self)
        wire.on_drained = lambda: owner.on_drained(self)

    @property
    def channel_name(self) -> str:
        """In the ledger."""
        return f"client:{self.number}"

    def carried(self) -> Entry:
        return Entry(self.wire.fd, Kind.CLIENT, self.channel_name)

    def export(self, carried: Carried) -> dict[str, Any]:
        """For the snapshot, without its streams. (No request is being carried out at an exec.)"""
        return {
            "number": self.number,
            "uid": self.uid,
            "is_control": self.is_control,
            "side": self.side.export(),
            "unread": carried.put(self.side.rest),
            "unsent": carried.put(bytes(self.wire.unsent)),
        }

    @property
    def owner(self) -> int | None:
        """Whose tasks it may see and change: None is everybody's."""
        return None if self.is_control else self.uid

    @property
    def held(self) -> int:
        """Bytes that wait for the peer: to send the rest, or to read."""
        return self.side.held + len(self.wire.unsent)

    @property
    def in_flight(self) -> int:
        """Requests that are being carried out; not streams, nor callers of a deploy."""
        return self._writes + (self._blocked is not None)

    # ── in ───────────────────────────────────────────────────────────────────────────────────

    def _on_data(self, data: bytes) -> None:
        self.side.feed(data)
        self.pump()

    @property
    def _takes_nothing(self) -> bool:
        """Nothing new is taken from it, whatever it has sent."""
        return self._owner.is_paused or self._blocked is not None or self.wire.is_full

    @property
    def is_paused(self) -> bool:
        """It is not read, for a reason of the daemon's own."""
        return self._takes_nothing or self._goes_on or self.side.is_full

    def pump(self) -> None:
        """Carry out what has come, as far as its turn and the order of effects allow; then decide
        whether it is read on."""
        room, has_moved = TURN, False
        try:
            while room > 0 and (event := self._next()) is not None:
                self._take(event)
                has_moved = True
                room -= _cost(event)
        except ProtocolError as error:
            self.say_goodbye(error)
        if room <= 0 and not self._goes_on:
            self._goes_on = True
            self._loop.soon(self._next_turn)
        is_paused = self.is_paused
        self.wire.pause(is_paused)
        owes = not is_paused and self.side.awaits_more
        self._owner.limits.owes(self, owes, has_moved)
        self._owner.limits.weigh(self, at_once=True)

    def _next_turn(self) -> None:
        """The others had theirs."""
        self._goes_on = False
        self.pump()

    def _next(self) -> protocol.ServerEvent | None:
        """What is to be done now, if there is something."""
        if self.wire.is_closed:
            return None
        if self._blocked is not None and self._writes == 0:
            blocked, self._blocked = self._blocked, None
            return blocked
        return None if self._takes_nothing else self.side.next()

    def _take(self, event: protocol.ServerEvent) -> None:
        match event:
            case protocol.Hello():
                self.wire.send(self.side.welcome(self.uid, self.is_control, taskd.__version__))
            case protocol.Answer(data):
                self._send(data)
            case protocol.Farewell(data):
                self.wire.send(data)
                self.close()
            case protocol.Request() if self._writes and event.op not in WRITES:
                self._blocked = event
            case protocol.Request():
                self._writes += event.op in WRITES
                self._owner.carry_out(self, event)

    # ── out ──────────────────────────────────────────────────────────────────────────────────

    def written(self, request: protocol.Request, outcome: dict[str, Any] | Refused) -> None:
        """A write is on disk (or refused): answer it, and go on with what waited for it."""
        self.answer(request, outcome)
        self.pump()
        self._owner.on_answered()

    def answer(self, request: protocol.Request, outcome: dict[str, Any] | Refused) -> None:
        self._writes -= request.op in WRITES
        if isinstance(outcome, Refused):
            self.refuse(request.id, outcome)
        else:
            self.reply(request.id, outcome)

    def reply(self, id: int, ok: dict[str, Any], short: dict[str, Any] | None = None) -> None:
        """``short``: of something that was done, if ``ok`` may not fit in a frame."""
        if not self.wire.is_closed:
            self._send(self.side.reply(id, ok, short))

    def refuse(self, id: int, error: Refused) -> None:
        if not self.wire.is_closed:
            self._send(self.side.refuse(id, error))

    def item(self, id: int, fields: dict[str, Any]) -> None:
        if not self.wire.is_closed:
            self._send(self.side.item(id, fields))

    def end(self, id: int) -> None:
        if not self.wire.is_closed:
            self._send(self.side.end(id, {}))

    def say_goodbye(self, error: Error) -> None:
        """Tell the reason, as far as the peer reads it, and close."""
        self.wire.send(protocol.farewell(error))
        self.close()

    def _send(self, data: bytes) -> None:
        self.wire.send(data)
        if self.wire.unsent:
            self._owner.limits.weigh(self)

    def close(self) -> None:
        self.wire.close()
        self._owner.forget(self)


def _cost(event: protocol.ServerEvent) -> int:
    """How much of its turn a request takes: one that names or lists many tasks reads them all; one
    that counts everything grows with what everybody has."""
    if not isinstance(event, protocol.Request):
        return 1
    if event.op in COUNTS:
        return TURN
    tasks = len(event.fields.get("tasks", ()))
    if event.op == "list":
        tasks = event.fields.get("limit") or USUAL
    return 1 + tasks // MANY

"""One client's connection: reads its requests, in turns with other clients, and sends the answers.

Requests take effect in their order: several writes may be under way (the store applies them in
order); every other request waits until the writes before it are answered. While a request waits for
an answer of the store (``reads``), no other is taken. A deploy does not wait for it: its request is
put back, and asked anew by the image that serves then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import taskd
from taskd.errors import ProtocolError, Refused
from taskd.master.loop import Loop, Notice, Wire
from taskd.protocol import server_side as protocol
from taskd.record import Protocol
from taskd.upgrade.snapshot import Carried

WRITES = frozenset(
    ("submit", "cancel", "retry", "change", "set_concurrency", "pause", "resume", "remove",
     "compact", "pause_schedule", "resume_schedule", "run_schedule")
)  # fmt: skip
"""Operations that are answered once they are on disk."""

READS = frozenset(
    ("show", "list", "log", "attempts", "follow", "wait", "status", "revisions", "schedules",
     "checkpoint", "why")
)  # fmt: skip
"""Operations that have done nothing before they are answered, and may wait for the store."""

COUNTS = frozenset(("status", "revisions"))
"""Operations that count the tasks of all users."""

TURN = 64
"""Requests of one connection before other connections have their turn; MANY tasks count as one."""

MANY = 16

USUAL = 100
"""Tasks in the answer to ``list``, unless the request has a limit."""


A = TypeVar("A")


class Limits(Protocol):
    """PeerLimits, as a client uses it."""

    def owes(self, client: Client, owes: bool, has_moved: bool) -> None: ...

    def weigh(self, client: Client, at_once: bool = False) -> None: ...


class Owner(Protocol):
    """Clients, as one of them uses it. ``is_paused``: no client is read."""

    is_paused: bool
    answered: Notice[[]]
    drained: Notice[[Client]]

    def carry_out(self, client: Client, request: protocol.Request) -> None: ...

    def go_on(
        self, client: Client, request: protocol.Request, step: Callable[[], None]
    ) -> None: ...

    def forget(self, client: Client) -> None: ...


class Client:
    """``number`` names it for good, also over an exec. ``is_control``: it came by control.sock and
    may do everything; ``uid`` owns the tasks that it submits. ``owner``: the user whose tasks it
    may see and change (None: those of all users). ``channel_name``: its name in the ledger."""

    __slots__ = (
        "_all",
        "_blocked",
        "_goes_on",
        "_is_pumping",
        "_limits",
        "_loop",
        "_reading",
        "_writes",
        "channel_name",
        "is_control",
        "number",
        "owner",
        "side",
        "uid",
        "wire",
    )

    def __init__(
        self,
        loop: Loop,
        clients: Owner,
        limits: Limits,
        number: int,
        wire: Wire,
        side: protocol.ServerSide,
        uid: int,
        is_control: bool,
    ) -> None:
        self._loop = loop
        self._all = clients
        self._limits = limits
        self.number = number
        self.channel_name = f"client:{number}"
        self.wire = wire
        self.side = side
        self.uid = uid
        self.is_control = is_control
        self.owner = None if is_control else uid
        self._writes = 0
        self._reading: protocol.Request | None = None
        self._is_pumping = False
        self._blocked: protocol.Request | None = None
        self._goes_on = False  # the loop will call _next_turn
        wire.on_data = self._on_data
        wire.on_lost = lambda: clients.forget(self)
        wire.on_drained = self._on_drained

    def export(self, carried: Carried) -> dict[str, Any]:
        """The client in the snapshot, without its streams. (At an exec no request is under way.)"""
        return {
            "number": self.number,
            "uid": self.uid,
            "is_control": self.is_control,
            "side": self.side.export(),
            "unread": carried.put(self.side.rest),
            "unsent": carried.put(bytes(self.wire.unsent)),
        }

    @property
    def held(self) -> int:
        """Bytes that wait for the peer: unfinished frames, and answers that it has not read."""
        return self.side.held + len(self.wire.unsent)

    @property
    def in_flight(self) -> int:
        """Requests under way, without open streams and callers of a deploy."""
        return self._writes + (self._reading is not None) + (self._blocked is not None)

    # ── in ───────────────────────────────────────────────────────────────────────────────────

    def _on_data(self, data: bytes) -> None:
        self.side.feed(data)
        self.pump()

    def _on_drained(self) -> None:
        self._all.drained(self)
        self.pump()

    @property
    def _takes_nothing(self) -> bool:
        """No new request is taken, whatever the client has sent."""
        is_busy = self._blocked is not None or self._reading is not None
        return self._all.is_paused or is_busy or self.wire.is_full

    @property
    def is_paused(self) -> bool:
        """The master does not read it, for a reason of its own: the client owes nothing."""
        return self._takes_nothing or self._goes_on or self.side.is_full

    def pump(self) -> None:
        """Carry out the requests that have come, as far as the client's turn and the order of
        effects allow; then decide whether its socket is read."""
        room, has_moved = TURN, False
        self._is_pumping = True
        try:
            while room > 0 and (event := self._next()) is not None:
                self._take(event)
                has_moved = True
                room -= _cost(event)
        except ProtocolError as error:
            self.say_goodbye(protocol.farewell(error))
        finally:
            self._is_pumping = False
        if room <= 0 and not self._goes_on:
            self._goes_on = True
            self._loop.soon(self._next_turn)
        is_paused = self.is_paused
        self.wire.pause(is_paused)
        self._limits.owes(self, not is_paused and self.side.awaits_more, has_moved)
        self._limits.weigh(self, at_once=True)

    def _next_turn(self) -> None:
        self._goes_on = False
        self.pump()

    def _next(self) -> protocol.ServerEvent | None:
        """The event to take now, if there is one."""
        if self.wire.is_closed:
            return None
        if self._blocked is not None and self._writes == 0:
            blocked, self._blocked = self._blocked, None
            if not (self._all.is_paused and blocked.op in READS):
                return blocked
            self.side.put_back(blocked)
        return None if self._takes_nothing else self.side.next()

    def _take(self, event: protocol.ServerEvent) -> None:
        match event:
            case protocol.Hello():
                self.wire.send(self.side.welcome(self.uid, self.is_control, taskd.__version__))
            case protocol.Answer(data):
                self._send(data)
            case protocol.Farewell(data):
                self.say_goodbye(data)
            case protocol.Request() if self._writes and event.op not in WRITES:
                self._blocked = event
            case protocol.Request():
                self._writes += event.op in WRITES
                self._all.carry_out(self, event)

    def reads(
        self, request: protocol.Request, then: Callable[[A], None]
    ) -> Callable[[A | Refused], None]:
        """What to call with the store's answer to a question that ``request`` needs: goes on with
        ``then``, which may raise Refused as a handler may. A client that has disconnected gets no
        answer."""
        assert request.op in READS, "it can be put back"
        self._reading = request

        def answered(answer: A | Refused) -> None:
            if self._reading is not request:  # it was put back
                return
            self._reading = None
            if isinstance(answer, Refused):
                self.refuse(request.id, answer)
            elif not self.wire.is_closed:
                self._all.go_on(self, request, lambda: then(answer))
            if not self._is_pumping:  # else it goes on by itself
                self.pump()
            self._all.answered()

        return answered

    def put_back(self) -> None:
        """No client is read for a while: what waits for the store is asked anew after that."""
        if self._reading is not None:
            self.side.put_back(self._reading)
            self._reading = None

    # ── out ──────────────────────────────────────────────────────────────────────────────────

    def written(self, request: protocol.Request, outcome: dict[str, Any] | Refused) -> None:
        """A write is on disk (or refused): answer it, then take the requests that waited for it."""
        self.answer(request, outcome)
        self.pump()
        self._all.answered()

    def answer(self, request: protocol.Request, outcome: dict[str, Any] | Refused) -> None:
        self._writes -= request.op in WRITES
        if isinstance(outcome, Refused):
            self.refuse(request.id, outcome)
        else:
            self.reply(request.id, outcome)

    def reply(self, id: int, ok: dict[str, Any], short: dict[str, Any] | None = None) -> None:
        """``short``: sent if ``ok`` does not fit in a frame, of a request that had an effect."""
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

    def say_goodbye(self, farewell: bytes) -> None:
        """Send the reason, as far as the socket takes it at once, and close."""
        self.wire.send(farewell)
        self.wire.close()
        self._all.forget(self)

    def let_go(self) -> None:
        """Its connection is closed: free what it held. The client stands in a cycle (its wire calls
        it), and the collector comes the later, the more else the daemon holds."""
        self.side.let_go()
        self.wire.unsent.clear()

    def _send(self, data: bytes) -> None:
        self.wire.send(data)
        if self.wire.unsent:
            self._limits.weigh(self)


def _cost(event: protocol.ServerEvent) -> int:
    """How much of its client's turn a request takes: one that names or lists many tasks reads all
    of them; one of COUNTS grows with the tasks of all users."""
    if not isinstance(event, protocol.Request):
        return 1
    if event.op in COUNTS:
        return TURN
    is_list = event.op == "list"
    tasks = event.fields.get("limit") or USUAL if is_list else len(event.fields.get("tasks", ()))
    return 1 + tasks // MANY

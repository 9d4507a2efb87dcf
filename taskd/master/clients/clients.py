"""The clients' connections: accepted, heard, answered, carried over an exec.

One ``Client`` per connection. Requests take effect in their order: writes may be under way
together (they are applied in order), anything else waits for the writes before it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import taskd
from taskd import log
from taskd.config import Access
from taskd.errors import Busy, Error, NotAllowed, ProtocolError, Refused
from taskd.master.clients import requests
from taskd.master.clients.listing import USUAL
from taskd.master.clients.peer_limits import MANY, TURN, Bounds, Seldom
from taskd.master.loop.ledger import Kind
from taskd.master.loop.wire import Wire
from taskd.paths import CONTROL_SOCKET, SUBMIT_SOCKET
from taskd.posix import sockets
from taskd.protocol import server_side as protocol

if TYPE_CHECKING:
    from taskd.master.master import Master


def socket_mode(name: str, access: Access) -> int:
    """The mode of the socket file ``name``: others may connect to it only if some of them may use
    it. Who may, is decided once they have connected, by their groups; a mode has only one group.
    """
    groups = {
        CONTROL_SOCKET: access.admin_groups,
        SUBMIT_SOCKET: access.admin_groups + access.submit_groups,
    }
    return 0o666 if groups.get(name) else 0o600


class Client:
    """One connection. ``number`` names it for good, also over an exec.

    ``is_control``: it came by control.sock and may do everything; ``uid`` owns what it submits.
    """

    __slots__ = (
        "_blocked",
        "_clients",
        "_goes_on",
        "_writes",
        "is_control",
        "number",
        "side",
        "uid",
        "wire",
    )

    def __init__(
        self,
        clients: Clients,
        number: int,
        wire: Wire,
        side: protocol.ServerSide,
        uid: int,
        is_control: bool,
    ) -> None:
        self._clients = clients
        self.number = number
        self.wire = wire
        self.side = side
        self.uid = uid
        self.is_control = is_control
        self._writes = 0
        self._blocked: protocol.Request | None = None
        self._goes_on = False  # its next turn will come
        wire.on_data = self._on_data
        wire.on_lost = lambda: clients.forget(self)
        wire.on_drained = self._on_drained

    @property
    def ledger_name(self) -> str:
        return f"client:{self.number}"

    @property
    def owner(self) -> int | None:
        """Whose tasks it may see and change: None is everybody's."""
        return None if self.is_control else self.uid

    @property
    def held(self) -> int:
        """Bytes that wait for the peer: to send the rest, or to read."""
        return self.side.held + self.wire.waiting

    @property
    def is_paused(self) -> bool:
        """Whether it is not read, for whatever reason of ours."""
        return self._holds_back or self._goes_on or self.side.is_full

    @property
    def in_flight(self) -> int:
        """Requests that are being carried out; not streams, nor who waits for a deploy."""
        return self._writes + (self._blocked is not None)

    # ── in ───────────────────────────────────────────────────────────────────────────────────

    def _on_data(self, data: bytes) -> None:
        self.side.feed(data)
        self.pump()

    def pump(self) -> None:
        """Carry out what has come, as far as its turn and the order of effects allow."""
        room, moved = TURN, False
        try:
            while room > 0 and (event := self._next()) is not None:
                self._take(event)
                moved = True
                room -= _cost(event)
        except ProtocolError as error:
            self.say_goodbye(error)
        if room <= 0 and not self._goes_on:
            self._goes_on = True
            self._clients.master.loop.soon(self._next_turn)
        self.wire.pause(self.is_paused)
        owes = not self.is_paused and self.side.awaits_more
        self._clients.bounds.owes(self, owes, moved)
        self._clients.bounds.weigh(self, at_once=True)

    def _next_turn(self) -> None:
        """The others had theirs."""
        self._goes_on = False
        self.pump()

    @property
    def _holds_back(self) -> bool:
        """Whether nothing new is taken from it, and so nothing more read, whatever it sends."""
        return self._clients.is_paused or self._blocked is not None or self.wire.is_full

    def _next(self) -> protocol.ServerEvent | None:
        """What is to be done now, if anything."""
        if self.wire.is_closed:
            return None
        if self._blocked is not None and self._writes == 0:
            blocked, self._blocked = self._blocked, None
            return blocked
        return None if self._holds_back else self.side.next()

    def _take(self, event: protocol.ServerEvent) -> None:
        match event:
            case protocol.Hello():
                self.wire.send(self.side.welcome(self.uid, self.is_control, taskd.__version__))
            case protocol.Answer(data):
                self._send(data)
            case protocol.Farewell(data):
                self.wire.send(data)
                self.close()
            case protocol.Request() if self._writes and event.op not in requests.WRITES:
                self._blocked = event
            case protocol.Request():
                self._carry_out(event)

    def _carry_out(self, request: protocol.Request) -> None:
        self._writes += request.op in requests.WRITES
        try:
            requests.HANDLERS[request.op](self._clients.master, self, request)
        except Refused as error:
            self._answer(request, error)
        except Exception as error:  # the boundary: one request must not end the daemon
            log.error("a request failed", op=request.op, why=f"{type(error).__name__}: {error}")
            self._answer(request, Refused(str(error) or type(error).__name__))

    def written(self, request: protocol.Request, outcome: dict[str, Any] | Refused) -> None:
        """A write is on disk (or refused): answer it, and go on with what waited for it."""
        self._answer(request, outcome)
        self.pump()
        self._clients.master.deploy.on_answered()

    def _answer(self, request: protocol.Request, outcome: dict[str, Any] | Refused) -> None:
        self._writes -= request.op in requests.WRITES
        if isinstance(outcome, Refused):
            self.refuse(request.id, outcome)
        else:
            self.reply(request.id, outcome)

    # ── out ──────────────────────────────────────────────────────────────────────────────────

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
        if self.wire.waiting:
            self._clients.bounds.weigh(self)

    def _on_drained(self) -> None:
        self._clients.master.streams.resume(self)
        self.pump()

    def close(self) -> None:
        self.wire.close()
        self._clients.forget(self)


class Clients:
    """Owns every Client."""

    def __init__(self, master: Master) -> None:
        self.master = master
        self._all: dict[int, Client] = {}
        self._numbers = 0
        self.is_paused = False
        self.bounds = Bounds(master.loop)
        self._not_allowed = Seldom("not allowed")
        self._no_room = Seldom("no room for a client")

    def __iter__(self) -> Iterator[Client]:
        return iter(list(self._all.values()))

    def get(self, number: int) -> Client | None:
        return self._all.get(number)

    @property
    def in_flight(self) -> int:
        return sum(client.in_flight for client in self._all.values())

    # ── accepting ────────────────────────────────────────────────────────────────────────────

    def accept_control(self, listener: socket.socket) -> None:
        self._accept(listener, is_control=True)

    def accept_submit(self, listener: socket.socket) -> None:
        self._accept(listener, is_control=False)

    def _accept(self, listener: socket.socket, is_control: bool) -> None:
        if self.is_paused:
            return
        with contextlib.suppress(BlockingIOError):
            sock, _ = listener.accept()
            self._meet(sock, is_control)

    def _meet(self, sock: socket.socket, is_control: bool) -> None:
        peer = sockets.peer(sock)
        access = self.master.config.access
        groups = access.admin_groups if is_control else access.admin_groups + access.submit_groups
        if not may_use(sock, peer, groups):
            name = CONTROL_SOCKET if is_control else SUBMIT_SOCKET
            self._not_allowed.warn(uid=peer.uid, socket=name)
            _send_away(sock, NotAllowed(f"user {peer.uid} may not use {name} (see [access])"))
            return
        try:
            self.bounds.check_room(peer.uid)
        except Busy as error:
            self._no_room.warn(why=str(error))
            _send_away(sock, error)
            return
        self._numbers += 1
        wire = Wire(self.master.loop, sock)
        side = protocol.ServerSide()
        client = Client(self, self._numbers, wire, side, peer.uid, is_control)
        self.add(client)
        wire.start()
        self.bounds.owes(client, True, False)

    def open_sockets(self) -> None:
        """Give the sockets the modes that [access] asks for now: a deploy may have changed it.
        Those that systemd holds have the modes that their units say."""
        for name in self.master.listeners.keys() - self.master.given:
            path = os.path.join(self.master.places.runtime, name)
            mode = socket_mode(name, self.master.config.access)
            try:
                if stat.S_IMODE(os.lstat(path).st_mode) != mode:
                    os.chmod(path, mode)
            except OSError as error:
                log.error("cannot set who may connect", socket=path, why=error.strerror)

    def add(self, client: Client) -> None:
        self._numbers = max(self._numbers, client.number)
        self._all[client.number] = client
        self.bounds.add(client)
        self.master.ledger.add(client.wire.fd, Kind.CLIENT, client.ledger_name)

    def forget(self, client: Client) -> None:
        """Its connection is closed."""
        self._all.pop(client.number, None)
        self.bounds.drop(client)
        self.master.ledger.drop(client.ledger_name)
        self.master.streams.forget(client)
        self.master.deploy.on_gone(client.number)
        self.master.deploy.on_answered()

    def pause(self, paused: bool) -> None:
        """Read no client and accept none (True); go on (False)."""
        self.is_paused = paused
        for client in self:
            client.wire.pause(paused)
        if not paused:
            self.pump()

    def pump(self) -> None:
        for client in self:
            client.pump()


def _send_away(sock: socket.socket, error: Refused) -> None:
    """Say why, as far as the socket takes it at once, and close."""
    with sock, contextlib.suppress(OSError):
        sock.setblocking(False)
        sock.send(protocol.farewell(error))


def _cost(event: protocol.ServerEvent) -> int:
    """How much of its turn a request takes: one that names or lists many tasks reads them all; one
    that counts everything grows with what everybody has."""
    if not isinstance(event, protocol.Request):
        return 1
    if event.op in requests.COUNTS:
        return TURN
    tasks = len(event.fields.get("tasks", ()))
    if event.op == "list":
        tasks = event.fields.get("limit") or USUAL
    return 1 + tasks // MANY


def may_use(sock: socket.socket, peer: sockets.Peer, groups: list[str]) -> bool:
    """The service's user, root, and the members of ``groups``; what the kernel says decides."""
    if peer.uid in (0, os.getuid()):
        return True
    if not groups:
        return False
    import grp

    wanted = set()
    for name in groups:
        with contextlib.suppress(KeyError):
            wanted.add(grp.getgrnam(name).gr_gid)
    try:
        return bool(wanted & (sockets.peer_groups(sock) | {peer.gid}))
    except OSError:
        return False

"""All clients: accepts them within the limits, and carries out their requests."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from taskd import log
from taskd.config import Config
from taskd.errors import Busy, NotAllowed, Refused
from taskd.master.clients.client import Client
from taskd.master.clients.peer_limits import PeerLimits
from taskd.master.loop import Caller, Entry, Kind, Loop, Notice, Seldom, Wire
from taskd.paths import CONTROL_SOCKET, SUBMIT_SOCKET
from taskd.posix import sockets
from taskd.protocol import server_side as protocol
from taskd.protocol.control import NEWEST

Handler = Callable[[Client, protocol.Request], None]


class Clients:
    """Owns every Client; the composition root sets ``handlers`` (by operation). Notices:
    ``answered`` (a request was answered, or a client is gone), ``gone``, ``drained`` (a client has
    read so many answers that the next may be sent)."""

    handlers: Mapping[str, Handler]

    def __init__(self, loop: Loop, config: Config, limits: PeerLimits) -> None:
        self._loop = loop
        self._access = config.access
        self._limits = limits
        self._all: dict[int, Client] = {}
        self._numbers = 0
        self.is_paused = False
        self.next_speaks = NEWEST
        self.callers: set[int] = set()
        self._not_allowed = Seldom("not allowed")
        self._no_room = Seldom("no room for a client")
        self.answered: Notice[[]] = Notice()
        self.gone: Notice[[Client]] = Notice()
        self.drained: Notice[[Client]] = Notice()

    def __iter__(self) -> Iterator[Client]:
        return iter(list(self._all.values()))

    def carried(self) -> list[Entry]:
        return [Entry(each.wire.fd, Kind.CLIENT, each.channel_name) for each in self.crossing()]

    def crossing(self) -> list[Client]:
        """Those that go over to the next image. A client that was told of a version which the next
        image does not speak would send it what that image ignores: its connection ends at the exec,
        and it connects anew, unless it waits for the verdict of the deploy (``callers``)."""
        return [
            client
            for client in self
            if client.side.version <= self.next_speaks or client.number in self.callers
        ]

    # ── coming and going ─────────────────────────────────────────────────────────────────────

    def accept(self, listener: socket.socket, is_control: bool) -> None:
        """Accept one connection of ``listener``, if the user may connect and there is room."""
        if self.is_paused:
            return
        try:
            sock, _ = listener.accept()
        except BlockingIOError:
            return
        peer, access = sockets.peer(sock), self._access
        groups = access.admin_groups if is_control else access.admin_groups + access.submit_groups
        if not may_use(sock, peer, groups):
            name = CONTROL_SOCKET if is_control else SUBMIT_SOCKET
            self._not_allowed.warn(uid=peer.uid, socket=name)
            _send_away(sock, NotAllowed(f"user {peer.uid} may not use {name} (see [access])"))
            return
        try:
            self._limits.check_room(peer.uid)
        except Busy as error:
            self._no_room.warn(why=str(error))
            _send_away(sock, error)
            return
        wire = Wire(self._loop, sock)
        client = self.add(self._numbers + 1, wire, protocol.ServerSide(), peer.uid, is_control)
        wire.watch()
        self._limits.owes(client, True, False)

    def add(
        self, number: int, wire: Wire, side: protocol.ServerSide, uid: int, is_control: bool
    ) -> Client:
        """A client that has connected, to this master or to the one before it."""
        client = Client(self._loop, self, self._limits, number, wire, side, uid, is_control)
        self._numbers = max(self._numbers, number)
        self._all[number] = client
        self._limits.add(client)
        return client

    def forget(self, client: Client) -> None:
        """The client's connection is closed."""
        self._all.pop(client.number, None)
        self._limits.drop(client)
        client.let_go()
        self.gone(client)
        self.answered()

    # ── requests ─────────────────────────────────────────────────────────────────────────────

    @property
    def in_flight(self) -> int:
        return sum(client.in_flight for client in self._all.values())

    def carry_out(self, client: Client, request: protocol.Request) -> None:
        self.go_on(client, request, lambda: self.handlers[request.op](client, request))

    def go_on(self, client: Client, request: protocol.Request, step: Callable[[], None]) -> None:
        """Take a step of a request; what it raises is the answer."""
        try:
            step()
        except Refused as error:
            client.answer(request, error)
        except Exception as error:  # the boundary: one request must not end the daemon
            log.error("a request failed", op=request.op, why=f"{type(error).__name__}: {error}")
            client.answer(request, Refused(str(error) or type(error).__name__))

    def pause(self, paused: bool) -> None:
        """Read no client and accept none (True); go on (False)."""
        self.is_paused = paused
        for client in self:
            client.wire.pause(paused)
            if paused:
                client.put_back()
        if not paused:
            self.pump()

    def pump(self) -> None:
        for client in self:
            client.pump()

    # ── answers that come later ──────────────────────────────────────────────────────────────

    def reply(
        self, caller: Caller, ok: dict[str, Any], short: dict[str, Any] | None = None
    ) -> None:
        if (client := self._all.get(caller.client)) is not None:
            client.reply(caller.request, ok, short)

    def refuse(self, caller: Caller, error: Refused) -> None:
        if (client := self._all.get(caller.client)) is not None:
            client.refuse(caller.request, error)

    def has_hung_up(self, caller: Caller) -> bool:
        client = self._all.get(caller.client)
        return client is not None and client.wire.is_hung_up

    def is_sent(self, caller: Caller) -> bool:
        client = self._all.get(caller.client)
        return client is None or not client.wire.unsent


def _send_away(sock: socket.socket, error: Refused) -> None:
    """Send the reason, as far as the socket takes it at once, and close."""
    with sock, contextlib.suppress(OSError):
        sock.setblocking(False)
        sock.send(protocol.farewell(error))


def may_use(sock: socket.socket, peer: sockets.Peer, groups: list[str]) -> bool:
    """Whether ``peer`` is root, the service's user or, as the kernel says, in one of ``groups``."""
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

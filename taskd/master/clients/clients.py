"""The clients: accepted, held to their limits, answered late, carried over an exec."""

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
from taskd.master.loop import Caller, Entry, Loop, Notice, Seldom, Wire
from taskd.paths import CONTROL_SOCKET, SUBMIT_SOCKET
from taskd.posix import sockets
from taskd.protocol import server_side as protocol

Handler = Callable[[Client, protocol.Request], None]


class Clients:
    """Owns every Client; ``handlers`` by operation are set by the composition root. Notices:
    ``answered`` (a write was answered, or a client is gone), ``gone``, ``drained`` (a client has
    read what was waiting for it)."""

    handlers: Mapping[str, Handler]

    def __init__(self, loop: Loop, config: Config, limits: PeerLimits) -> None:
        self._loop = loop
        self._access = config.access
        self.limits = limits
        self._all: dict[int, Client] = {}
        self._numbers = 0
        self.is_paused = False
        self._not_allowed = Seldom("not allowed")
        self._no_room = Seldom("no room for a client")
        self.answered: Notice[[]] = Notice()
        self.gone: Notice[[Client]] = Notice()
        self.drained: Notice[[Client]] = Notice()

    def __iter__(self) -> Iterator[Client]:
        return iter(list(self._all.values()))

    def carried(self) -> list[Entry]:
        return [client.carried() for client in self]

    # ── coming and going ─────────────────────────────────────────────────────────────────────

    def accept(self, listener: socket.socket, is_control: bool) -> None:
        if self.is_paused:
            return
        with contextlib.suppress(BlockingIOError):
            sock, _ = listener.accept()
            self._meet(sock, is_control)

    def _meet(self, sock: socket.socket, is_control: bool) -> None:
        peer, access = sockets.peer(sock), self._access
        groups = access.admin_groups if is_control else access.admin_groups + access.submit_groups
        if not may_use(sock, peer, groups):
            name = CONTROL_SOCKET if is_control else SUBMIT_SOCKET
            self._not_allowed.warn(uid=peer.uid, socket=name)
            _send_away(sock, NotAllowed(f"user {peer.uid} may not use {name} (see [access])"))
            return
        try:
            self.limits.check_room(peer.uid)
        except Busy as error:
            self._no_room.warn(why=str(error))
            _send_away(sock, error)
            return
        wire = Wire(self._loop, sock)
        client = self.add(self._numbers + 1, wire, protocol.ServerSide(), peer.uid, is_control)
        wire.watch()
        self.limits.owes(client, True, False)

    def add(
        self, number: int, wire: Wire, side: protocol.ServerSide, uid: int, is_control: bool
    ) -> Client:
        """One that has connected, here or to the master before this one."""
        client = Client(self._loop, self, number, wire, side, uid, is_control)
        self._numbers = max(self._numbers, number)
        self._all[number] = client
        self.limits.add(client)
        return client

    def forget(self, client: Client) -> None:
        """Its connection is closed."""
        self._all.pop(client.number, None)
        self.limits.drop(client)
        self.gone(client)
        self.answered()

    # ── requests ─────────────────────────────────────────────────────────────────────────────

    @property
    def in_flight(self) -> int:
        return sum(client.in_flight for client in self._all.values())

    def carry_out(self, client: Client, request: protocol.Request) -> None:
        try:
            self.handlers[request.op](client, request)
        except Refused as error:
            client.answer(request, error)
        except Exception as error:  # the boundary: one request must not end the daemon
            log.error("a request failed", op=request.op, why=f"{type(error).__name__}: {error}")
            client.answer(request, Refused(str(error) or type(error).__name__))

    def on_answered(self) -> None:
        self.answered()

    def on_drained(self, client: Client) -> None:
        self.drained(client)
        client.pump()

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
    """Say why, as far as the socket takes it at once, and close."""
    with sock, contextlib.suppress(OSError):
        sock.setblocking(False)
        sock.send(protocol.farewell(error))


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

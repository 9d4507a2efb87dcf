"""Limits on what one client, and all clients together, may take of the master.

Counted by connection and by user (as the kernel tells the uid). A client that asks for more is
refused, or its connection is closed, with the reason; no other client is disturbed.

    connections    half of the descriptors, MAX_CLIENTS at most; half of that for one user
    silence        HEARD_WITHIN for a hello, and for a frame from its first byte to its last
    memory         HELD_IN_ALL bytes that wait: unfinished frames, and answers that are not read.
                   Beyond, the connection that holds most, of the user who holds most, is closed
    streams        MOST_STREAMS, and MOST_WATCHED tasks in them, for one user
    turns          TURN requests, or one that names many tasks (see ``client``)

The counts do not cross an exec: the next image counts the connections that it adopts.
"""

from __future__ import annotations

import time
from collections import Counter

from taskd.errors import Busy
from taskd.master.clients.client import Client
from taskd.master.loop import Loop, Seldom
from taskd.posix import limits
from taskd.protocol.server_side import farewell

MAX_CLIENTS = 2000
"""Connections at a time; no more than half of the descriptors either."""

HEARD_WITHIN = 30.0
"""Seconds for a hello, and for each frame from its first byte to its last."""

HELD_IN_ALL = 64 * 1024 * 1024
"""Bytes of all connections together: unfinished frames, and answers that are not read."""

MOST_STREAMS = 4096
"""Streams that one user may have open, over all connections."""

MOST_WATCHED = 50_000
"""Tasks in the open streams of one user; a task in several streams counts once in each."""


class PeerLimits:
    """Invariants: ``_held`` has each connection's bytes as last weighed, ``_held_in_all`` their
    sum; ``_waiting`` has the deadline of each connection that owes the rest of a frame, the
    earliest first, and a timer is set for the first of them.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._connections: Counter[int] = Counter()
        self._streams: Counter[int] = Counter()
        self._watched: Counter[int] = Counter()
        self._held: dict[Client, int] = {}
        self._held_in_all = 0
        self._waiting: dict[Client, float] = {}
        self._is_timed = False
        self._cut_off = Seldom("a client is cut off")

    # ── connections ──────────────────────────────────────────────────────────────────────────

    def check_room(self, uid: int) -> None:
        """Raises Busy if one more connection of user ``uid`` would be too many."""
        most = most_clients()
        if (count := self._connections.total()) >= most:
            raise Busy(f"{count} clients are connected, and {most} is the limit; try again later")
        if (count := self._connections[uid]) >= most // 2:
            raise Busy(
                f"user {uid} has {count} connections, and {most // 2} is the limit for one user: "
                "close some, or try again later"
            )

    def add(self, client: Client) -> None:
        self._connections[client.uid] += 1
        self._held[client] = 0

    def drop(self, client: Client) -> None:
        if client in self._held:
            self._connections[client.uid] -= 1
            self._held_in_all -= self._held.pop(client)
            self._waiting.pop(client, None)

    # ── silence ──────────────────────────────────────────────────────────────────────────────

    def owes(self, client: Client, owes: bool, has_moved: bool) -> None:
        """``owes``: the client has begun a frame (or sent no hello yet) and must go on.
        ``has_moved``: a whole frame has come since the last call."""
        if has_moved or not owes:
            self._waiting.pop(client, None)
        if owes and client in self._held:
            self._waiting.setdefault(client, time.monotonic() + HEARD_WITHIN)
            self._set_timer()

    def _set_timer(self) -> None:
        if not self._is_timed and self._waiting:
            self._is_timed = True
            left = next(iter(self._waiting.values())) - time.monotonic()
            self._loop.after(max(0.0, left), self._look)

    def _look(self) -> None:
        self._is_timed = False
        now = time.monotonic()
        for client in [each for each, until in self._waiting.items() if until <= now]:
            del self._waiting[client]
            if client.is_paused:  # the master does not read it: it owes nothing
                client.pump()
            else:
                self._end(client, f"nothing whole has come from it for {HEARD_WITHIN:.0f} s")
        self._set_timer()

    # ── memory ───────────────────────────────────────────────────────────────────────────────

    def weigh(self, client: Client, at_once: bool = False) -> None:
        """Count the bytes of a client anew; above HELD_IN_ALL, close those that hold most.

        ``at_once``: now, which is safe only when no send to a client is under way; else at the end
        of the loop's round. A round may read and answer a thousand clients: its end is late.
        """
        if client not in self._held:
            return
        self._held_in_all += (now := client.held) - self._held[client]
        self._held[client] = now
        if self._held_in_all > HELD_IN_ALL:
            self._shed() if at_once else self._loop.soon(self._shed)

    def _shed(self) -> None:
        self._held = {client: client.held for client in self._held}  # some have read since
        self._held_in_all = sum(self._held.values())
        while self._held_in_all > HELD_IN_ALL:
            by_user: Counter[int] = Counter()
            for client, held in self._held.items():
                by_user[client.uid] += held
            ((worst, _),) = by_user.most_common(1)
            most = max((c for c in self._held if c.uid == worst), key=lambda c: self._held[c])
            self._end(most, f"{self._held[most]:,} bytes wait for it, more than there is room for")

    def _end(self, client: Client, why: str) -> None:
        self._cut_off.warn(uid=client.uid, why=why)
        client.say_goodbye(farewell(Busy(f"{why}: the connection is closed")))

    # ── streams ──────────────────────────────────────────────────────────────────────────────

    def check_stream(self, uid: int, tasks: int) -> None:
        """Raises Busy if one more stream, on ``tasks`` tasks, is too much for user ``uid``."""
        if self._streams[uid] >= MOST_STREAMS:
            raise Busy(f"user {uid} has {MOST_STREAMS:,} streams open, the limit: end some first")
        if self._watched[uid] + tasks > MOST_WATCHED:
            raise Busy(
                f"user {uid} watches {self._watched[uid]:,} tasks in open streams, and "
                f"{MOST_WATCHED:,} is the limit: end some first, or ask for fewer at a time"
            )

    def count_stream(self, uid: int, tasks: int, opened: bool) -> None:
        """A stream on ``tasks`` tasks was opened, or closed."""
        step = 1 if opened else -1
        self._streams[uid] += step
        self._watched[uid] += step * tasks


def most_clients() -> int:
    """How many clients may connect, so that descriptors are left for workers, slots and files."""
    return min(MAX_CLIENTS, limits.most() // 2)

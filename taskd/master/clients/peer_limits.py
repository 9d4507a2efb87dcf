"""What peers may take of the master, each and all together, so that none is in another's way.

Counted by connection and by user (the kernel says who that is). What goes beyond is refused, or its
connection is ended, with the reason; all other clients go on.

    connections    half of what the process may open, MAX_CLIENTS at most; half of that for a user
    silence        HEARD_WITHIN for a hello, and for a frame from its first byte to its last
    memory         HELD_IN_ALL bytes that wait: unfinished frames, and what a peer does not read.
                   Beyond, the connection that holds most, of the user who holds most, is ended
    streams        MOST_STREAMS, and MOST_WATCHED tasks in them, for a user
    turns          TURN requests, or one that names many tasks, before the next connection's turn

Nothing of this is carried over an exec: it is counted anew from the connections that are.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Protocol

from taskd.errors import Busy, Error
from taskd.master.loop import Loop, Seldom
from taskd.posix import limits

MAX_CLIENTS = 2000
"""Connections at a time, and half of the descriptors at most."""

HEARD_WITHIN = 30.0
"""Seconds for a hello, and for each frame from its first byte to its last."""

HELD_IN_ALL = 64 * 1024 * 1024
"""Bytes of all connections that wait for their peers: frames to be ended, replies to be read."""

MOST_STREAMS = 4096
"""Streams that one user may have open, over all connections."""

MOST_WATCHED = 50_000
"""Tasks in the open streams of one user; one that stands in several counts in each."""

TURN = 64
"""What one connection may ask before others have their turn, in requests; MANY tasks are one."""

MANY = 16

USUAL = 100
"""Tasks in a list, unless more or fewer were asked for."""


class Peer(Protocol):
    """A client's connection, as far as it is bounded here."""

    @property
    def uid(self) -> int: ...

    @property
    def held(self) -> int:
        """Bytes that wait for it: to send the rest, or to read."""

    @property
    def is_paused(self) -> bool:
        """The daemon does not read it: it owes nothing."""

    def pump(self) -> None: ...

    def say_goodbye(self, error: Error) -> None: ...


class PeerLimits:
    """Invariants: ``_held`` has each connection's bytes as last weighed, ``_held_in_all`` their
    sum; ``_waiting`` those connections that owe the rest of a frame, longest first, and a timer
    is set for the first of them.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._connections: Counter[int] = Counter()
        self._streams: Counter[int] = Counter()
        self._watched: Counter[int] = Counter()
        self._held: dict[Peer, int] = {}
        self._held_in_all = 0
        self._waiting: dict[Peer, float] = {}
        self._is_timed = False
        self._cut_off = Seldom("a client is cut off")

    # ── connections ──────────────────────────────────────────────────────────────────────────

    def check_room(self, uid: int) -> None:
        """Raises Busy if one more connection of that user is too many."""
        most = most_clients()
        if (count := self._connections.total()) >= most:
            raise Busy(f"{count} clients are connected, and {most} is the limit; try again later")
        if (count := self._connections[uid]) >= most // 2:
            raise Busy(
                f"user {uid} has {count} connections, and {most // 2} is the limit for one user: "
                "close some, or try again later"
            )

    def add(self, client: Peer) -> None:
        self._connections[client.uid] += 1
        self._held[client] = 0

    def drop(self, client: Peer) -> None:
        if client in self._held:
            self._connections[client.uid] -= 1
            self._held_in_all -= self._held.pop(client)
            self._waiting.pop(client, None)

    # ── silence ──────────────────────────────────────────────────────────────────────────────

    def owes(self, client: Peer, owes: bool, has_moved: bool) -> None:
        """Whether the peer ``owes`` the rest of what it began; ``has_moved``: something whole has
        come since this was last said."""
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
            if client.is_paused:  # the daemon does not read: it owes nothing
                client.pump()
            else:
                self._end(client, f"nothing whole has come from it for {HEARD_WITHIN:.0f} s")
        self._set_timer()

    # ── memory ───────────────────────────────────────────────────────────────────────────────

    def weigh(self, client: Peer, at_once: bool = False) -> None:
        """What waits for that peer has changed; ends whoever holds most, if all is too much.

        ``at_once``: nobody is in the middle of a send to anyone. A thousand peers may be read or
        answered in one round of the loop, so that the end of the round would be too late.
        """
        if client not in self._held:
            return
        self._held_in_all += (now := client.held) - self._held[client]
        self._held[client] = now
        if self._held_in_all > HELD_IN_ALL:
            self._shed() if at_once else self._loop.soon(self._shed)

    def _shed(self) -> None:
        self._held = {client: client.held for client in self._held}  # what was read since counts
        self._held_in_all = sum(self._held.values())
        while self._held_in_all > HELD_IN_ALL:
            by_user: Counter[int] = Counter()
            for client, held in self._held.items():
                by_user[client.uid] += held
            ((worst, _),) = by_user.most_common(1)
            most = max((c for c in self._held if c.uid == worst), key=lambda c: self._held[c])
            self._end(most, f"{self._held[most]:,} bytes wait for it, more than there is room for")

    def _end(self, client: Peer, why: str) -> None:
        self._cut_off.warn(uid=client.uid, why=why)
        client.say_goodbye(Busy(f"{why}: the connection is closed"))

    # ── streams ──────────────────────────────────────────────────────────────────────────────

    def check_stream(self, uid: int, tasks: int) -> None:
        """Raises Busy if one more stream on so many tasks is too much for that user."""
        if self._streams[uid] >= MOST_STREAMS:
            raise Busy(f"user {uid} has {MOST_STREAMS:,} streams open, the limit: end some first")
        if self._watched[uid] + tasks > MOST_WATCHED:
            raise Busy(
                f"user {uid} watches {self._watched[uid]:,} tasks in open streams, and "
                f"{MOST_WATCHED:,} is the limit: end some first, or ask for fewer at a time"
            )

    def opened(self, uid: int, tasks: int) -> None:
        self._streams[uid] += 1
        self._watched[uid] += tasks

    def closed(self, uid: int, tasks: int) -> None:
        self._streams[uid] -= 1
        self._watched[uid] -= tasks


def most_clients() -> int:
    """So many that workers, slots and files find descriptors however many clients connect."""
    return min(MAX_CLIENTS, limits.most() // 2)

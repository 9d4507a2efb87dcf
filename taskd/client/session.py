"""Requests over lost connections, without input or output: what both clients share.

A ``Session`` outlives its connections. It knows every request that has no answer yet and every
stream that is open; on a new connection it sends them again in their order, streams from where
they were. That is sound since each operation but those in NOT_REPEATED may be repeated: ``submit``
carries an id that makes it one task, the others set a wish or only read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from taskd.errors import Busy, Error, NoDaemon, NotAllowed, ProtocolError, Refused
from taskd.protocol.client_side import (
    ClientSide,
    End,
    Goodbye,
    Item,
    Refusal,
    Reply,
    Welcome,
)
from taskd.protocol.control import OLDEST
from taskd.protocol.operations import STREAMS, needs

NOT_REPEATED = frozenset(("reload", "rollback", "shutdown"))
"""Operations that are not sent again: what became of the first is unknown, and a second rollback
would undo it, a second shutdown stop the next daemon."""

DEPLOYS = frozenset(("reload", "rollback"))
"""Operations after which another version of taskd may be at the other end."""

PATIENCE = 90.0
"""Seconds that a client waits by default for a daemon that went away or says nothing: longer than
systemd's watchdog (WatchdogSec= in the unit) takes to end one that hangs, and the next to serve."""

_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 0.5


class Asked:
    """One request until it is over; it belongs to one Session.

    ``number`` is its id on the current connection, None while it is not sent there. ``ok`` is its
    reply; ``items`` what a stream sent and the caller has not taken yet; ``is_over`` that nothing
    more comes, because of ``error`` or by itself. ``sent`` counts how often it went out.
    """

    __slots__ = ("error", "fields", "is_over", "items", "number", "ok", "op", "sent")

    def __init__(self, op: str, fields: dict[str, Any]) -> None:
        self.op = op
        self.fields = dict(fields)
        self.number: int | None = None
        self.ok: dict[str, Any] | None = None
        self.items: deque[dict[str, Any]] = deque()
        self.error: Error | None = None
        self.is_over = False
        self.sent = 0

    def take(self, item: dict[str, Any]) -> None:
        """One item of a stream; what was had before a lost connection does not count again."""
        if self.op == "wait":
            task = item.get("task")
            number = task.get("id") if isinstance(task, dict) else None
            if number in self.fields["tasks"]:
                self.fields["tasks"] = [each for each in self.fields["tasks"] if each != number]
                self.items.append(item)
        elif "event" in item:
            self._has_told(item)
            self.items.append(item)
        elif self._replaces_last(item):
            self.items[-1] = item
        else:
            self.items.append(item)

    def _has_told(self, item: dict[str, Any]) -> None:
        """The stream goes on behind this event, from its token or, by a daemon that has none, its
        number."""
        number, token = item["event"], item.get("token")
        if type(number) is not int or not isinstance(token, str | None):
            raise ProtocolError("an event whose number is not an int, or whose token is not a str")
        self.fields["after"], self.fields["token"] = number, token

    def _replaces_last(self, item: dict[str, Any]) -> bool:
        """Whether this is newer progress of the task whose progress is the last item. The caller
        has not taken that one yet, and only the latest counts."""
        last = self.items[-1].get("progress") if self.items else None
        new = item.get("progress")
        return (
            isinstance(last, dict)
            and isinstance(new, dict)
            and bool(last.get("task") == new.get("task"))
        )


class Session:
    """All requests of one client, over one connection after the other.

    After each call, send what ``to_send`` gives. A request that needs a newer version of the
    protocol than OLDEST is held back until the daemon has told its own, and those asked after it
    as well; a daemon that is too old is not asked. Invariants: ``waiting`` has the requests
    that are not over and wanted, in the order of asking; ``_sent`` those of the current connection
    that are not over, wanted or not, by their ids there; ``_held_back`` those that wait for its
    welcome.
    """

    def __init__(self) -> None:
        self._side: ClientSide | None = None
        self._out: list[bytes] = []
        self.waiting: dict[Asked, None] = {}
        self._sent: dict[int, Asked] = {}
        self._held_back: list[Asked] = []
        self.welcome: Welcome | None = None

    def to_send(self) -> bytes:
        """The bytes to send now; each only once."""
        data = b"".join(self._out)
        self._out.clear()
        return data

    def connected(self) -> None:
        """There is a new connection: queue all requests that wait for sending."""
        self._side, self.welcome = ClientSide(), None
        self._out.append(self._side.hello())
        for asked in self.waiting:
            self._hold_or_send(self._side, asked)

    def ask(self, asked: Asked) -> None:
        """Take in a request; it goes out now, with the daemon's welcome or with the next
        connection. It is over at once if the daemon is known to be too old for it."""
        self.waiting[asked] = None
        if self._side is not None:
            self._hold_or_send(self._side, asked)

    def drop(self, asked: Asked) -> None:
        """The caller waits for this request no longer; stop it if it is an open stream."""
        self.waiting.pop(asked, None)
        if asked.ok is not None:
            self._stop(asked)

    def lost(self) -> list[Asked]:
        """The connection is gone; returns the requests that are over because of it."""
        self._side = None
        self._sent.clear()
        self._held_back.clear()
        self._out.clear()
        over = []
        for asked in list(self.waiting):
            if asked.number is not None and asked.op in NOT_REPEATED:
                unknown = (
                    f"the connection was lost before the daemon told how the {asked.op} ended, and "
                    f"a {asked.op} is not asked for twice: see `taskctl status` for what serves now"
                )
                over.append(self._finish(asked, Error(unknown)))
            elif asked.op == "wait" and not asked.fields["tasks"]:
                over.append(self._finish(asked))  # all was told but the end
            asked.number = asked.ok = None
        return over

    def turned_away(self) -> None:
        """The daemon refused the connection, and took none of the requests that were sent on it."""
        for asked in self.waiting:
            asked.number = None
        self.lost()

    def fail(self, error: Error) -> list[Asked]:
        """End all requests that wait with ``error``; returns them."""
        over = [self._finish(asked, error) for asked in list(self.waiting)]
        self.lost()
        return over

    def receive(self, data: bytes) -> list[Asked]:
        """Take in what the daemon sent; returns the requests that have news.

        Raises ProtocolError if it breaks the protocol. Where the daemon sent a refusal in place of
        its hello (see ``turned_away``): NotAllowed, or Busy, after which a new try may succeed.
        """
        side = self._side
        if side is None:
            return []
        side.feed(data)
        news: dict[Asked, None] = {}
        while (event := side.next()) is not None:
            if isinstance(event, Goodbye):
                if self.welcome is None and isinstance(event.error, NotAllowed | Busy):
                    raise event.error
                return self.fail(event.error)
            if isinstance(event, Welcome):
                self.welcome = event
                held, self._held_back = self._held_back, []
                for asked in held:
                    if asked in self.waiting:
                        self._hold_or_send(side, asked)
                        if asked.is_over:  # the daemon is too old for it
                            news[asked] = None
            elif (sent := self._sent.get(event.id)) is not None:  # else the answer to a stop
                self._deliver(sent, event)
                news[sent] = None
        return list(news)

    def _deliver(self, asked: Asked, event: Reply | Refusal | Item | End) -> None:
        if isinstance(event, Item):
            if asked in self.waiting:
                asked.take(event.fields)
        elif isinstance(event, Reply):
            asked.ok = event.ok
            if asked.op not in STREAMS:
                self._finish(asked)
            elif asked not in self.waiting:
                self._stop(asked)  # dropped before it was open
        else:
            self._finish(asked, event.error if isinstance(event, Refusal) else None)

    def _hold_or_send(self, side: ClientSide, asked: Asked) -> None:
        version, what = needs(asked.op, asked.fields)
        if self.welcome is None and (self._held_back or version > OLDEST):
            self._held_back.append(asked)
        elif self.welcome is not None and version > self.welcome.version:
            too_old = (
                f"the daemon that runs is taskd {self.welcome.taskd}, which has no {what}; nothing "
                "was asked of it. Restart it with the taskd of this client first"
            )
            self._finish(asked, Refused(too_old))
        else:
            asked.number, data = side.request(asked.op, asked.fields)
            asked.sent += 1
            self._sent[asked.number] = asked
            self._out.append(data)

    def _stop(self, asked: Asked) -> None:
        if self._side is not None and asked.number in self._sent:
            _, data = self._side.request("stop", {"stream": asked.number})
            self._out.append(data)

    def _finish(self, asked: Asked, error: Error | None = None) -> Asked:
        asked.is_over, asked.error = True, error
        self.waiting.pop(asked, None)
        if asked.number is not None:
            self._sent.pop(asked.number, None)
        return asked


class Reached:
    """Whether a client ever had a connection, and how many it lost; one for all its links."""

    ever = False
    lost = 0


class Patience:
    """When a lost daemon is tried again: after growing pauses, for ``limit`` seconds.

    A daemon that was never reached is not waited for. ``now`` is a monotonic clock's.
    """

    __slots__ = ("_next", "_reached", "_since", "limit")

    def __init__(self, limit: float, reached: Reached) -> None:
        self.limit = limit
        self._reached = reached
        self._since: float | None = None
        self._next = 0.0

    def connected(self) -> None:
        """There is a connection; only an answer ends the pauses (see ``heard``)."""
        self._reached.ever = True

    def lost(self) -> None:
        """A connection ended although it was still wanted."""
        self._reached.lost += 1

    def heard(self) -> None:
        """The daemon answered: the next loss is given the whole limit again."""
        self._since = None
        self._next = 0.0

    def pause(self, error: Error, now: float) -> float:
        """Connecting failed, or the connection is lost: seconds until the next try.

        Raises ``error`` once patience is at its end.
        """
        if self._since is None:
            self._since = now
        left = self._since + self.limit - now
        if not self._reached.ever or left <= 0:
            raise error
        pause = min(self._next, left)
        self._next = min(max(2 * self._next, _FIRST_PAUSE), _LONGEST_PAUSE)
        return pause


def connection_lost(log: str) -> NoDaemon:
    """Connections are made but end before an answer. ``log``: where the daemon's log is."""
    return NoDaemon(f"the daemon takes connections, but ends them without an answer: see {log}")


def no_answer(limit: float, log: str) -> NoDaemon:
    """No answer comes over a connection that stands."""
    return NoDaemon(
        f"connected, but the daemon did not answer within {limit:g} s: it hangs, or systemd holds "
        f"the socket for one that does not come up (see {log}); what was asked may still be done"
    )


def still_running(tasks: Sequence[int]) -> TimeoutError:
    """Waiting for ``tasks`` took too long."""
    shown = ", ".join(map(str, tasks[:10]))
    more = f" and {len(tasks) - 10} more" if len(tasks) > 10 else ""
    return TimeoutError(f"not ended in time, and going on: task {shown}{more}")

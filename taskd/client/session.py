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
from taskd.protocol.control import LOWEST
from taskd.protocol.operations import STREAMS, needs

NOT_REPEATED = frozenset(("reload", "rollback", "shutdown"))
"""Operations that are not sent again: what became of the first is unknown, and a second rollback
would undo it, a second shutdown stop the next daemon."""

PATIENCE = 90.0
"""Seconds that a client waits by default for a daemon that went away or says nothing: longer than
systemd's watchdog (WatchdogSec= in the unit) takes to end one that hangs, and the next to serve."""

_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 0.5


class Asked:
    """One request until it is over; it belongs to one Session.

    ``number`` is its id on the current connection, None while it is not sent there. ``ok`` is its
    reply; ``items`` what a stream sent and nobody took yet; ``is_over`` that nothing more comes,
    because of ``error`` or by itself. ``sent`` counts how often it went out.
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

    @property
    def has_news(self) -> bool:
        """Whether a look at it is worth while: an item, or its end."""
        return self.is_over or bool(self.items)

    def finish(self, error: Error | None = None) -> None:
        self.is_over, self.error = True, error

    def take(self, item: dict[str, Any]) -> None:
        """One item of a stream; what was had before a lost connection does not count again."""
        if self.op == "wait":
            self._take_settled(item)
        elif "event" in item:
            self._take_event(item)
        elif self._replaces_last(item):
            self.items[-1] = item
        else:
            self.items.append(item)

    def _take_settled(self, item: dict[str, Any]) -> None:
        task = item.get("task")
        number = task.get("id") if isinstance(task, dict) else None
        if number in self.fields["tasks"]:
            self.fields["tasks"] = [each for each in self.fields["tasks"] if each != number]
            self.items.append(item)

    def _take_event(self, item: dict[str, Any]) -> None:
        if type(item["event"]) is not int:
            raise ProtocolError("an event whose number is not an int")
        if item["event"] > self.fields.get("after", 0):
            self.fields["after"] = item["event"]
            self.items.append(item)

    def _replaces_last(self, item: dict[str, Any]) -> bool:
        """Of progress that nobody took yet, only a task's latest is kept."""
        last = self.items[-1].get("progress") if self.items else None
        new = item.get("progress")
        if not isinstance(last, dict) or not isinstance(new, dict):
            return False
        return bool(last.get("task") == new.get("task"))


class Session:
    """All requests of one client, over one connection after the other.

    After each call, send what ``to_send`` gives. A request that takes a newer version of the
    protocol than the first is held back until the daemon has told its own, and those asked after
    it as well; a daemon that is too old is not asked. Invariants: ``_waiting`` has the requests
    that are not over and wanted, in the order of asking; ``_sent`` those of the current connection
    that are not over, wanted or not, by their ids there; ``_held_back`` those that wait for its
    welcome.
    """

    def __init__(self) -> None:
        self._side: ClientSide | None = None
        self._out: list[bytes] = []
        self._waiting: dict[Asked, None] = {}
        self._sent: dict[int, Asked] = {}
        self._held_back: list[Asked] = []
        self.welcome: Welcome | None = None

    @property
    def has_work(self) -> bool:
        """Whether anything still waits for the daemon."""
        return bool(self._waiting)

    def to_send(self) -> bytes:
        """The bytes to send now; each only once."""
        data = b"".join(self._out)
        self._out.clear()
        return data

    def connected(self) -> None:
        """There is a new connection: all that waits goes out."""
        self._side, self.welcome = ClientSide(), None
        self._out.append(self._side.hello())
        for asked in self._waiting:
            self._hold_or_send(self._side, asked)

    def ask(self, asked: Asked) -> None:
        """Take in a request; it goes out now, with the daemon's welcome or with the next
        connection. It is over at once if the daemon is known to be too old for it."""
        self._waiting[asked] = None
        if self._side is not None:
            self._hold_or_send(self._side, asked)

    def drop(self, asked: Asked) -> None:
        """Nobody waits for it any more; an open stream is stopped."""
        self._waiting.pop(asked, None)
        if asked.ok is not None:
            self._stop(asked)

    def lost(self) -> list[Asked]:
        """The connection is gone; those that are over because of it."""
        self._side = None
        self._sent.clear()
        self._held_back.clear()
        self._out.clear()
        over = []
        for asked in list(self._waiting):
            if asked.number is not None and asked.op in NOT_REPEATED:
                over.append(self._finish(asked, _unknown_outcome(asked.op)))
            elif asked.op == "wait" and not asked.fields["tasks"]:
                over.append(self._finish(asked))  # all was told but the end
            asked.number = asked.ok = None
        return over

    def turned_away(self) -> None:
        """The connection is of no use to our user, and nothing that went out was taken."""
        for asked in self._waiting:
            asked.number = None
        self.lost()

    def fail(self, error: Error) -> list[Asked]:
        """Nothing will be answered; all that waited is over."""
        over = [self._finish(asked, error) for asked in list(self._waiting)]
        self.lost()
        return over

    def receive(self, data: bytes) -> list[Asked]:
        """What came; those requests that have news.

        Raises ProtocolError if it is broken. In place of a hello the daemon may have turned us
        away (see ``turned_away``): NotAllowed, or Busy, and then it may be tried again.
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
                news |= dict.fromkeys(self._send_held_back(side))
            elif event.id in self._sent:  # else the answer to a stop
                news[self._deliver(self._sent[event.id], event)] = None
        return list(news)

    def _deliver(self, asked: Asked, event: Reply | Refusal | Item | End) -> Asked:
        if isinstance(event, Item):
            if asked in self._waiting:
                asked.take(event.fields)
        elif isinstance(event, Refusal):
            self._finish(asked, event.error)
        elif isinstance(event, End):
            self._finish(asked)
        else:
            self._take_ok(asked, event.ok)
        return asked

    def _take_ok(self, asked: Asked, ok: dict[str, Any]) -> None:
        asked.ok = ok
        if asked.op not in STREAMS:
            self._finish(asked)
        elif asked not in self._waiting:
            self._stop(asked)  # dropped before it was open

    def _hold_or_send(self, side: ClientSide, asked: Asked) -> None:
        version, what = needs(asked.op, asked.fields)
        if self.welcome is None and (self._held_back or version > LOWEST):
            self._held_back.append(asked)
        elif self.welcome is not None and version > self.welcome.version:
            self._finish(asked, _too_old(self.welcome.taskd, what))
        else:
            self._send(side, asked)

    def _send_held_back(self, side: ClientSide) -> list[Asked]:
        """The daemon has told its version; gives those that are over because it is too old."""
        held, self._held_back = self._held_back, []
        wanted = [asked for asked in held if asked in self._waiting]
        for asked in wanted:
            self._hold_or_send(side, asked)
        return [asked for asked in wanted if asked.is_over]

    def _send(self, side: ClientSide, asked: Asked) -> None:
        asked.number, data = side.request(asked.op, asked.fields)
        asked.sent += 1
        self._sent[asked.number] = asked
        self._out.append(data)

    def _stop(self, asked: Asked) -> None:
        if self._side is not None and asked.number in self._sent:
            _, data = self._side.request("stop", {"stream": asked.number})
            self._out.append(data)

    def _finish(self, asked: Asked, error: Error | None = None) -> Asked:
        asked.finish(error)
        self._waiting.pop(asked, None)
        if asked.number is not None:
            self._sent.pop(asked.number, None)
        return asked


class Reached:
    """Whether a client ever had a connection, and how many it lost; one for all its links."""

    __slots__ = ("ever", "lost")

    def __init__(self) -> None:
        self.ever = False
        self.lost = 0


class Patience:
    """How a lost daemon is borne: tried again, with growing pauses, for ``limit`` seconds.

    A daemon that was never reached is not waited for. ``now`` is a monotonic clock's.
    """

    __slots__ = ("_next", "_reached", "_since", "limit")

    def __init__(self, limit: float, reached: Reached) -> None:
        self.limit = limit
        self._reached = reached
        self._since: float | None = None
        self._next = 0.0

    def connected(self) -> None:
        """There is a connection; whether it is of use, an answer will tell."""
        self._reached.ever = True

    def lost(self) -> None:
        """A connection ended although it was still wanted."""
        self._reached.lost += 1

    def heard(self) -> None:
        """The daemon answered something: all is well again."""
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
    """What is said when connections are made but end before an answer. ``log``: where its log is,
    in words."""
    return NoDaemon(f"the daemon takes connections, but ends them without an answer: see {log}")


def no_answer(limit: float, log: str) -> NoDaemon:
    """What is said when nothing comes over a connection that stands."""
    return NoDaemon(
        f"connected, but the daemon did not answer within {limit:g} s: it hangs, or systemd holds "
        f"the socket for one that does not come up (see {log}); what was asked may still be done"
    )


def kept_waiting(limit: float) -> NoDaemon:
    """What is said when other threads' requests over the same connection take too long."""
    return NoDaemon(
        f"other threads' requests over this client were not answered within {limit:g} s, so that "
        "this one was not sent"
    )


def too_deep(depth: int) -> Refused:
    """What is said to a call within ``depth`` others of the same thread."""
    return Refused(
        f"{depth} calls of this thread are within one another already, and this one was not sent: "
        "a signal handler (or destructor) that uses the client is called faster than it ends"
    )


def still_running(tasks: Sequence[int]) -> TimeoutError:
    """What is said when waiting for ``tasks`` took too long."""
    shown = ", ".join(map(str, tasks[:10]))
    more = f" and {len(tasks) - 10} more" if len(tasks) > 10 else ""
    return TimeoutError(f"not ended in time, and going on: task {shown}{more}")


def _too_old(taskd: str, what: str) -> Refused:
    return Refused(
        f"the daemon that runs is taskd {taskd}, which has no {what}; nothing was asked of it. "
        "Restart it with the taskd of this client first"
    )


def _unknown_outcome(op: str) -> Error:
    return Error(
        f"the connection was lost before the daemon told how the {op} ended, and a {op} is not "
        "asked for twice: see `taskctl status` for what serves now"
    )

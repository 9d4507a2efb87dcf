"""``follow`` and ``wait``: what clients are told as it happens, none of it twice, none missed.

Level-triggered: a committed change marks the task's streams; a stream is then brought up to date
from the store, from the last event number it sent. A client that reads slowly is paused at that
number. So there is nothing to carry over an exec but the number.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

from taskd.master.attempts import Attempts
from taskd.master.clients.client import Client
from taskd.master.clients.peer_limits import PeerLimits
from taskd.master.clients.taskviews import TaskViews
from taskd.master.fleet import Running
from taskd.master.loop import PASSING, Loop, Storage
from taskd.model.task import SETTLED
from taskd.store.api import Applied, Event, Row, Submitted

BATCH = 200
"""Events read for one stream at a time."""

AT_ONCE = 64
"""Streams that are brought up to date in one go; with more, others have their turn in between."""


class Stream:
    """One open stream. ``open``: tasks that are not settled; ``stale``: tasks that changed since
    (of a ``follow``, only whether there are any counts). ``late``: the store could not be read, and
    a timer brings it up to date.

    ``after``: number of the last event sent (follow). ``wait`` sends each task once it is settled.
    ``within``: the running task whose code does nothing but wait here (see ``stuck``).
    """

    __slots__ = (
        "after",
        "client",
        "id",
        "is_follow",
        "late",
        "open",
        "progress",
        "stale",
        "tasks",
        "within",
    )

    def __init__(self, client: Client, id: int, tasks: list[int], is_follow: bool) -> None:
        self.client = client
        self.id = id
        self.tasks = tasks
        self.is_follow = is_follow
        self.open: set[int] = set()
        self.stale: set[int] = set(tasks)
        self.after = 0
        self.progress = False
        self.late = False
        self.within: int | None = None

    def export(self) -> dict[str, Any]:
        """For the snapshot. (Which tasks have changed stays behind: all are looked at anew.)"""
        return {
            "id": self.id,
            "tasks": self.tasks,
            "is_follow": self.is_follow,
            "after": self.after,
            "progress": self.progress,
            "open": list(self.open),
            "within": self.within,
        }

    @classmethod
    def restored(cls, client: Client, fields: dict[str, Any]) -> Stream:
        """What ``export`` of this version or of the one before has written."""
        stream = cls(client, fields["id"], fields["tasks"], fields["is_follow"])
        stream.after, stream.progress = fields["after"], fields["progress"]
        stream.open, stream.within = set(fields["open"]), fields["within"]
        return stream


class Streams:
    """Owns every Stream."""

    def __init__(
        self, loop: Loop, storage: Storage, attempts: Attempts, limits: PeerLimits, views: TaskViews
    ) -> None:
        self._loop = loop
        self._storage = storage
        self._attempts = attempts
        self._limits = limits
        self._views = views
        self._by_task: dict[int, dict[Stream, None]] = {}
        self._by_client: dict[int, dict[int, Stream]] = {}
        self._late: dict[Stream, bool] = {}  # to be brought up to date; whether with progress

    # ── opening and closing ──────────────────────────────────────────────────────────────────

    def follow(self, client: Client, id: int, rows: list[Row], after: int, progress: bool) -> None:
        stream = Stream(client, id, [row.id for row in rows], is_follow=True)
        stream.after, stream.progress = after, progress
        self._open(stream, rows)

    def wait(self, client: Client, id: int, rows: list[Row], within: int | None = None) -> None:
        stream = Stream(client, id, [row.id for row in rows], is_follow=False)
        stream.within = within
        self._open(stream, rows)

    def _open(self, stream: Stream, rows: list[Row]) -> None:
        # The rows were read before any event is: an event read later can only say newer things.
        settled = {row.id for row in rows if row.state in SETTLED}
        stream.open = set(stream.tasks) - (settled if stream.is_follow else set())
        self._enter(stream)
        self._update(stream)
        if stream.progress and stream.open:  # else it has ended already
            self._send_current_progress(stream)

    def _enter(self, stream: Stream) -> None:
        self._by_client.setdefault(stream.client.number, {})[stream.id] = stream
        for task in set(stream.tasks):
            self._by_task.setdefault(task, {})[stream] = None
        self._limits.opened(stream.client.uid, len(stream.tasks))

    def stop(self, client: Client, id: int) -> None:
        stream = self._by_client.get(client.number, {}).get(id)
        if stream is not None:
            self._close(stream)

    def _close(self, stream: Stream) -> None:
        if self._by_client.get(stream.client.number, {}).pop(stream.id, None) is None:
            return
        self._late.pop(stream, None)
        for task in set(stream.tasks):
            streams = self._by_task[task]
            del streams[stream]
            if not streams:
                del self._by_task[task]
        self._limits.closed(stream.client.uid, len(stream.tasks))

    def forget(self, client: Client) -> None:
        for stream in self.of(client):
            self._close(stream)
        self._by_client.pop(client.number, None)

    def of(self, client: Client) -> list[Stream]:
        return list(self._by_client.get(client.number, {}).values())

    def within(self) -> list[Stream]:
        """Those in which a running task waits."""
        found = [each for streams in self._by_client.values() for each in streams.values()]
        return [each for each in found if each.within is not None]

    def restore(self, client: Client, fields: dict[str, Any]) -> None:
        """Take over a stream of the master before this one; ``on_everything`` brings it on."""
        self._enter(Stream.restored(client, fields))

    # ── what happened ────────────────────────────────────────────────────────────────────────

    def on_applied(self, outcome: Applied) -> None:
        """An operation is committed: whose streams does it concern?"""
        if not self._by_task:
            return
        if outcome.task is not None:
            self._mark(outcome.task)
        elif isinstance(outcome.result, list):
            for each in outcome.result:
                self._mark(each.task if isinstance(each, Submitted) else each)

    def _mark(self, task: int) -> None:
        streams = list(self._by_task.get(task, ()))
        for stream in streams:
            stream.stale.add(task)
        self._bring_on(streams)

    def on_everything(self) -> None:
        """After an exec: anything may have changed."""
        everything = [s for streams in self._by_client.values() for s in streams.values()]
        for stream in everything:
            stream.stale = set(stream.tasks)
        self._bring_on(everything)

    def resume(self, client: Client) -> None:
        """The client has read what was waiting for it."""
        for stream in self.of(client):
            self._update(stream)

    def on_progress(self, running: Running) -> None:
        streams = [s for s in self._by_task.get(running.task, ()) if s.progress]
        if len(streams) > AT_ONCE:
            self._bring_on_later(streams, with_progress=True)
            return
        for stream in streams:
            if not stream.client.wire.is_full:
                self._send_progress(stream, running)

    def _bring_on(self, streams: list[Stream]) -> None:
        if len(streams) > AT_ONCE:
            self._bring_on_later(streams, with_progress=False)
            return
        for stream in streams:
            self._update(stream)

    def _bring_on_later(self, streams: list[Stream], with_progress: bool) -> None:
        """Too many for one go. Each waits once, however much happens meanwhile."""
        if not self._late:
            self._loop.soon(self._bring_on_some)
        for stream in streams:
            self._late[stream] = with_progress or self._late.get(stream, False)

    def _bring_on_some(self) -> None:
        for stream in list(islice(self._late, AT_ONCE)):
            with_progress = self._late.pop(stream, None)
            if with_progress is None:
                continue  # it was closed on the way
            self._update(stream)
            if with_progress and stream.open and not stream.client.wire.is_full:
                self._send_current_progress(stream)
        if self._late:
            self._loop.soon(self._bring_on_some)

    # ── sending ──────────────────────────────────────────────────────────────────────────────

    def _update(self, stream: Stream) -> None:
        """Bring it up to date; again later, while the store cannot be read."""
        try:
            self._send(stream)
        except PASSING as error:
            self._loop.troubles.tell("a client waits for what happened", error)
            if not stream.late:
                stream.late = True
                self._loop.again(lambda: self._update_late(stream))

    def _update_late(self, stream: Stream) -> None:
        stream.late = False
        if stream in self.of(stream.client):  # else it has been closed meanwhile
            self._update(stream)

    def _send(self, stream: Stream) -> None:
        if stream.is_follow:
            self._send_events(stream)
        else:
            self._send_settled(stream)
        if not stream.open and not stream.stale:
            self._close(stream)
            stream.client.end(stream.id)

    def _send_events(self, stream: Stream) -> None:
        """Every event after ``after``, of all its tasks, in the order of their numbers.

        All of its tasks are read, whichever changed: by the time we hear of one commit the next
        may be there, and what is sent for one task must not pass over another's event.
        """
        while stream.stale and not stream.client.wire.is_full:
            events = self._storage.reader.events(stream.tasks, stream.after, BATCH)
            if len(events) < BATCH:
                stream.stale = set()
            for event in events:
                stream.client.item(stream.id, _event_item(event))
                stream.after = event.number
                if event.state in SETTLED:
                    stream.open.discard(event.task)
                else:
                    stream.open.add(event.task)

    def _send_settled(self, stream: Stream) -> None:
        for task in list(stream.stale):
            if stream.client.wire.is_full:
                return
            row = self._storage.reader.task(task)
            if row is not None and row.state in SETTLED and task in stream.open:
                stream.client.item(stream.id, {"task": self._views.view(row)})
                stream.open.discard(task)
            stream.stale.discard(task)

    def _send_current_progress(self, stream: Stream) -> None:
        for task in stream.tasks:
            running = self._attempts.get(task)
            if running is not None and running.progress is not None:
                self._send_progress(stream, running)

    def _send_progress(self, stream: Stream, running: Running) -> None:
        if running.progress is not None:
            progress = {"task": running.task, **running.progress}
            stream.client.item(stream.id, {"progress": progress})


def _event_item(event: Event) -> dict[str, Any]:
    return {
        "event": event.number,
        "task": event.task,
        "at": event.at,
        "state": event.state.value,
        "attempt": event.attempt,
        "revision": event.revision,
        "reason": event.reason,
    }

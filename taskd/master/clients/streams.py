"""``follow`` and ``wait``: streams that tell a client each event of its tasks exactly once.

Level-triggered: a committed change marks the task's streams; a stream is then brought up to date
from the store, from the token of the last event that it sent. The stream of a client that reads
slowly stays there. So an exec has to carry nothing but the token.
"""

from __future__ import annotations

import time
from functools import partial
from itertools import islice
from typing import Any

from taskd.errors import StoreError
from taskd.master.attempts import Attempts
from taskd.master.clients.client import Client
from taskd.master.clients.peer_limits import PeerLimits
from taskd.master.clients.taskviews import TaskViews
from taskd.master.fleet import Running
from taskd.master.loop import PASSING, Loop, Storage
from taskd.model.task import SETTLED
from taskd.store.api import Applied
from taskd.store.queries import Events, Glance, NextEvent, Part, Query, Shown, Told

AT_ONCE = 64
"""Streams that are brought up to date in one go; with more, the loop does other work between."""


class Stream:
    """One open stream. ``open``: tasks that are not settled; ``stale``: tasks that have changed
    since the store was asked (a ``follow`` only asks whether there are any). ``is_asking``: the
    store's answer is on its way, or a timer will ask it again.

    ``token``: the store's, of what was sent (follow); ``after``: the number of the last event, by
    which 0.2 goes on, and where there is no token. ``wait`` sends each task once it is settled.
    ``within``: the running task whose code does nothing but wait here (see ``wait_cycles``).
    """

    __slots__ = (
        "after",
        "client",
        "id",
        "is_asking",
        "is_follow",
        "open",
        "progress",
        "stale",
        "tasks",
        "token",
        "within",
    )

    def __init__(self, client: Client, id: int, tasks: list[int], is_follow: bool) -> None:
        self.client = client
        self.id = id
        self.tasks = tasks
        self.is_follow = is_follow
        self.open: set[int] = set()
        self.stale: set[int] = set(tasks)
        self.token: str | None = None
        self.after = 0
        self.progress = False
        self.is_asking = False
        self.within: int | None = None

    def export(self) -> dict[str, Any]:
        """The stream in the snapshot, without ``stale``: the next image looks at all its tasks."""
        return {
            "id": self.id,
            "tasks": self.tasks,
            "is_follow": self.is_follow,
            "token": self.token,
            "after": self.after,
            "progress": self.progress,
            "open": list(self.open),
            "within": self.within,
        }


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
        self._late: dict[Stream, bool] = {}  # the streams to bring up to date: with progress?

    # ── opening and closing ──────────────────────────────────────────────────────────────────

    def open(self, stream: Stream, tasks: list[Glance]) -> None:
        """``tasks``: those of the stream, read just now. (An event that is read later can only be
        newer.)"""
        settled = {task.id for task in tasks if task.state in SETTLED}
        stream.open = set(stream.tasks) - (settled if stream.is_follow else set())
        self._enter(stream)
        self._update(stream)
        if stream.progress and stream.open:  # else it has ended already
            self._send_current_progress(stream)

    def _enter(self, stream: Stream) -> None:
        self._by_client.setdefault(stream.client.number, {})[stream.id] = stream
        for task in set(stream.tasks):
            self._by_task.setdefault(task, {})[stream] = None
        self._limits.count_stream(stream.client.uid, len(stream.tasks), opened=True)

    def close(self, client: Client, id: int) -> None:
        """Nothing happens if there is no such stream."""
        stream = self._by_client.get(client.number, {}).pop(id, None)
        if stream is None:
            return
        self._late.pop(stream, None)
        for task in set(stream.tasks):
            streams = self._by_task[task]
            del streams[stream]
            if not streams:
                del self._by_task[task]
        self._limits.count_stream(client.uid, len(stream.tasks), opened=False)

    def forget(self, client: Client) -> None:
        for stream in self.of(client):
            self.close(client, stream.id)
        self._by_client.pop(client.number, None)

    def of(self, client: Client) -> list[Stream]:
        return list(self._by_client.get(client.number, {}).values())

    def has_to_tell(self, task: int) -> bool:
        """Whether a client waits for the task's end, and has not been told of it."""
        return any(task in stream.open for stream in self._by_task.get(task, ()))

    def within(self) -> list[Stream]:
        """The streams in which a running task waits."""
        return [each for each in self._every() if each.within is not None]

    def _every(self) -> list[Stream]:
        return [each for streams in self._by_client.values() for each in streams.values()]

    def restore(self, client: Client, fields: dict[str, Any]) -> None:
        """Take over a stream that the master before this one has exported (this version, or the one
        before it); ``on_everything`` brings it up to date."""
        stream = Stream(client, fields["id"], fields["tasks"], fields["is_follow"])
        stream.after, stream.progress = fields["after"], fields["progress"]
        stream.token = fields.get("token")
        stream.open, stream.within = set(fields["open"]), fields["within"]
        self._enter(stream)

    # ── what happened ────────────────────────────────────────────────────────────────────────

    def on_applied(self, outcome: Applied) -> None:
        """An operation is committed: mark the streams of its tasks."""
        if not self._by_task:
            return
        for task in outcome.also:
            self._mark(task)
        if outcome.task is not None:
            self._mark(outcome.task)
        elif isinstance(outcome.result, list):
            for each in outcome.result:
                self._mark(each if isinstance(each, int) else each.task)

    def _mark(self, task: int) -> None:
        streams = list(self._by_task.get(task, ()))
        for stream in streams:
            stream.stale.add(task)
        self._bring_on(streams)

    def on_everything(self) -> None:
        """After an exec: every task may have changed."""
        every = self._every()
        for stream in every:
            stream.stale = set(stream.tasks)
        self._bring_on(every)

    def resume(self, client: Client) -> None:
        """The client has read so many answers that the next items may be sent."""
        for stream in self.of(client):
            self._update(stream)

    def on_progress(self, running: Running) -> None:
        streams = [s for s in self._by_task.get(running.task, ()) if s.progress]
        if len(streams) > AT_ONCE:
            self._bring_on_later(streams, with_progress=True)
        else:
            for stream in streams:
                if not stream.client.wire.is_full:
                    self._send_progress(stream, running)

    def _bring_on(self, streams: list[Stream]) -> None:
        if len(streams) > AT_ONCE:
            self._bring_on_later(streams, with_progress=False)
        else:
            for stream in streams:
                self._update(stream)

    def _bring_on_later(self, streams: list[Stream], with_progress: bool) -> None:
        """Too many streams for one go. Each is queued once, however many changes it sees."""
        if not self._late:
            self._loop.soon(self._bring_on_some)
        for stream in streams:
            self._late[stream] = with_progress or self._late.get(stream, False)

    def _bring_on_some(self) -> None:
        for stream in list(islice(self._late, AT_ONCE)):
            if (with_progress := self._late.pop(stream, None)) is not None:  # else it was closed
                self._update(stream)
                if with_progress and stream.open and not stream.client.wire.is_full:
                    self._send_current_progress(stream)
        if self._late:
            self._loop.soon(self._bring_on_some)

    # ── sending ──────────────────────────────────────────────────────────────────────────────

    def _update(self, stream: Stream) -> None:
        """Ask the store for what the stream lacks, unless it is being asked; end a stream that is
        over."""
        if stream.is_asking or stream.client.wire.is_full:  # ``resume`` comes, once it is not
            return
        if stream.stale:
            self._ask(stream, self._lacking(stream))
        elif not stream.open and stream in self.of(stream.client):
            self.close(stream.client, stream.id)
            stream.client.end(stream.id)

    def _lacking(self, stream: Stream) -> Query[Part[Any]]:
        """What to ask for. The events of all its tasks are read, whichever has changed: when the
        master hears of one commit, the store may have the next, and an event sent for one task must
        not move the token past an earlier event of another."""
        stale, stream.stale = stream.stale, set()
        if stream.is_follow:
            return Events(tuple(stream.tasks), self._token(stream))
        return Shown(tuple(stale), time.time(), only_settled=True)

    def _token(self, stream: Stream) -> str:
        if stream.token is None:
            stream.token = self._storage.reader.token(stream.after)
            assert stream.token is not None, "a number is one"
        return stream.token

    def _ask(self, stream: Stream, query: Query[Part[Any]]) -> None:
        stream.is_asking = True
        self._storage.ask(query, partial(self._on_answer, stream, query))

    def _on_answer(
        self, stream: Stream, query: Query[Part[Any]], part: Part[Any] | StoreError
    ) -> None:
        """Send what was found, and go on; after a transient error a timer asks again."""
        if stream not in self.of(stream.client):  # it was closed meanwhile
            return
        try:
            if isinstance(part, StoreError):
                raise part
            for found in part.found:
                if stream.is_follow:
                    self._send_event(stream, found)
                else:
                    self._send_settled(stream, found)
        except PASSING as error:
            self._loop.troubles.tell("a client waits for what happened", error)
            if isinstance(query, Events):  # some of it may have been sent
                query = Events(query.tasks, self._token(stream))
            self._loop.again(lambda: self._go_on(stream, query))
            return
        if part.next is not None:
            rest = part.next
            self._loop.soon(lambda: self._go_on(stream, rest))
        else:
            stream.is_asking = False
            self._update(stream)

    def _go_on(self, stream: Stream, query: Query[Part[Any]]) -> None:
        """Ask for the rest, unless the client has too much to read: then all of it is asked for
        again, or what is left of a ``wait``."""
        if stream not in self.of(stream.client):
            return
        if stream.client.wire.is_full:
            stream.is_asking = False
            stream.stale.update(query.tasks if isinstance(query, Shown) else stream.tasks)
        else:
            self._ask(stream, query)

    def _send_event(self, stream: Stream, next_: NextEvent) -> None:
        event = next_.event
        item = {
            "event": event.number,
            "token": next_.token,
            "task": event.task,
            "at": event.at,
            "state": event.state.value,
            "attempt": event.attempt,
            "revision": event.revision,
            "reason": event.reason,
        }
        stream.client.item(stream.id, item)
        stream.token, stream.after = next_.token, event.number
        if event.state in SETTLED:
            stream.open.discard(event.task)
        else:
            stream.open.add(event.task)

    def _send_settled(self, stream: Stream, told: Told) -> None:
        if told.row.id in stream.open:
            stream.client.item(stream.id, {"task": self._views.view(told)})
            stream.open.discard(told.row.id)

    def _send_current_progress(self, stream: Stream) -> None:
        for task in stream.tasks:
            if (running := self._attempts.get(task)) is not None:
                self._send_progress(stream, running)

    def _send_progress(self, stream: Stream, running: Running) -> None:
        if running.progress is not None:
            stream.client.item(stream.id, {"progress": {"task": running.task, **running.progress}})

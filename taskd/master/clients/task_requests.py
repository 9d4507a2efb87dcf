"""The requests about tasks: one handler for each operation of ``protocol.control``.

A handler answers by ``client.reply``, or raises Refused; one that writes calls ``client.written``
once its operation is on disk. The protocol has checked the fields before.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

from taskd.errors import Refused, StoreError, UnknownTask
from taskd.master.attempts import Attempts, Dispatch
from taskd.master.clients.client import USUAL, Client
from taskd.master.clients.clients import Handler
from taskd.master.clients.new_tasks import NewTasks, submitted_view
from taskd.master.clients.peer_limits import PeerLimits
from taskd.master.clients.shares import Shares
from taskd.master.clients.streams import Stream, Streams
from taskd.master.clients.taskviews import ROOM, TaskViews, attempt_view
from taskd.master.clients.wait_cycles import WaitCycles
from taskd.master.fleet import Revisions
from taskd.master.loop import Storage
from taskd.model.task import SETTLED, State
from taskd.paths import Places
from taskd.posix import files, growing
from taskd.protocol.server_side import Request
from taskd.record import Record
from taskd.store.api import Applied, Operation, SubmitAll
from taskd.store.queries import AttemptsOf, Filter, Glance, Glances, Listed, Removed, Shown, Told
from taskd.store.values import Attempt, Row

LOG_CHUNK = 256 * 1024
"""Bytes of a task's log in one reply, unless less was asked for."""


_NARROWS = ("queue", "name", "before", "key", "revision", "since", "until", "text")
"""Fields of ``list`` that are those of a Filter."""


class TaskRequests(Record):
    places: Places
    storage: Storage
    revisions: Revisions
    attempts: Attempts
    dispatch: Dispatch
    limits: PeerLimits
    new: NewTasks
    shares: Shares
    streams: Streams
    views: TaskViews
    cycles: WaitCycles

    def handlers(self) -> dict[str, Handler]:
        return {
            "submit": self.submit,
            "show": self.show,
            "list": self.list_tasks,
            "wait": self.wait,
            "follow": self.follow,
            "stop": self.stop,
            "log": self.log,
            "attempts": self.tell_attempts,
        }

    # ── submitting ───────────────────────────────────────────────────────────────────────────

    def submit(self, client: Client, request: Request) -> None:
        self._need_whole_store()
        now, share = time.time(), self.shares.of(client)
        self.shares.check(client, request.fields["tasks"])
        new = [self.new.task(client, task, now, share) for task in request.fields["tasks"]]
        operation: Operation = new[0] if len(new) == 1 else SubmitAll(tuple(new))

        def done(result: Any) -> None:
            made = result if isinstance(result, list) else [result]
            client.written(request, {"tasks": [*map(submitted_view, made)]})
            for task in new:
                self.dispatch.on_waiting({task.delay, task.due, task.expires} != {None})

        self._write(client, request, operation, done)

    def _write(
        self, client: Client, request: Request, operation: Operation, done: Callable[[Any], None]
    ) -> None:
        """Commit ``operation``, then call ``done`` with its result; a refusal goes to the
        client."""

        def written(outcome: Applied | StoreError) -> None:
            result = outcome.result if isinstance(outcome, Applied) else outcome
            if isinstance(result, Refused):
                client.written(request, result)
            else:
                done(result)

        self.storage.write(operation, written)

    def _need_whole_store(self) -> None:
        """Raises StoreError: what is written to a damaged file may be lost, or damage the rest."""
        if self.storage.damage is not None:
            raise self.storage.damage

    # ── looking ──────────────────────────────────────────────────────────────────────────────

    def show(self, client: Client, request: Request) -> None:
        task = request.fields["task"]

        def shown(found: list[Told]) -> None:
            if self._is_visible(client, request, task, [told.row for told in found]):
                client.reply(request.id, {"task": self.views.view(found[0])})

        self.storage.gather(Shown((task,), time.time()), client.reads(request, shown))

    def tell_attempts(self, client: Client, request: Request) -> None:
        task = request.fields["task"]

        def told(found: list[Attempt]) -> None:
            client.reply(request.id, {"attempts": [*map(attempt_view, found)]})

        def seen(found: list[Glance]) -> None:
            if self._is_visible(client, request, task, found):
                self.storage.gather(AttemptsOf(task), client.reads(request, told))

        self.storage.gather(Glances((task,)), client.reads(request, seen))

    def list_tasks(self, client: Client, request: Request) -> None:
        fields = request.fields
        state = fields.get("state")
        wanted = Filter(
            owner=fields.get("owner") if client.owner is None else client.owner,
            state=State(state) if state else None,
            limit=fields.get("limit") or USUAL,
            **{name: fields.get(name) for name in _NARROWS},
        )

        def listed(found: list[Told]) -> None:
            client.reply(request.id, {"tasks": self.views.listed(found)})

        query = Listed(wanted, fields.get("results", False), ROOM, time.time())
        self.storage.gather(query, client.reads(request, listed))

    def log(self, client: Client, request: Request) -> None:
        task, offset = request.fields["task"], request.fields.get("offset") or 0
        limit = min(request.fields.get("limit") or LOG_CHUNK, LOG_CHUNK)

        def seen(found: list[Glance]) -> None:
            if self._is_visible(client, request, task, found):
                chunk = self._log(task, offset, limit, request.fields.get("skips", False))
                client.reply(request.id, chunk | {"ended": found[0].state in SETTLED})

        self.storage.gather(Glances((task,)), client.reads(request, seen))

    def _log(self, task: int, offset: int, limit: int, skips: bool) -> dict[str, Any]:
        """A piece of the task's log. Raises Refused."""
        try:
            fd = files.open_own(self.places.task_log(task), os.O_RDONLY)
        except FileNotFoundError:  # it has not run yet
            start, chunk, size = offset, b"", 0
        except OSError as error:
            raise Refused(f"the log of task {task} cannot be read: {error.strerror}") from error
        else:
            with open(fd, "rb", buffering=0):
                start, chunk = (
                    growing.read(fd, offset, limit)
                    if skips
                    else (offset, os.pread(fd, limit, offset))
                )
                size = os.fstat(fd).st_size
        return {"data": chunk, "offset": start + len(chunk), "size": size}

    def _is_visible(
        self, client: Client, request: Request, task: int, found: Sequence[Row | Glance]
    ) -> bool:
        """Else the client is told why not."""
        missing = _missing(client, [task], found)
        if missing:
            self._tell_missing(client, request, missing, None)
        return not missing

    def _tell_missing(
        self, client: Client, request: Request, tasks: list[int], go_on: Callable[[], None] | None
    ) -> None:
        """Refuse the request for the first of these tasks that the client cannot see; ``go_on``: go
        on with the others if all of these were there once."""

        def found(removed: list[int]) -> None:
            if go_on is not None and set(tasks) <= set(removed):
                go_on()
                return
            task = next(task for task in tasks if go_on is None or task not in removed)
            why = ": it was over for so long that it has been removed ([retention])"
            was_removed = client.owner is None and task in removed
            raise UnknownTask(f"no task {task}{why if was_removed else ''}")

        self.storage.gather(Removed(tuple(tasks)), client.reads(request, found))

    # ── watching ─────────────────────────────────────────────────────────────────────────────

    def _watch(
        self,
        client: Client,
        request: Request,
        then: Callable[[list[Glance]], None],
        also: Collection[int] = (),
    ) -> None:
        """Go on with the tasks that the request names, if the client may watch them; ``also``: with
        these, too."""
        tasks = request.fields["tasks"]
        self.limits.check_stream(client.uid, len(tasks))
        goes_on = bool(request.fields.get("token") or request.fields.get("after"))

        def seen(found: list[Glance]) -> None:
            if missing := _missing(client, tasks, found):
                self._tell_missing(
                    client, request, missing, (lambda: go_on(found)) if goes_on else None
                )
            else:
                go_on(found)

        def go_on(found: list[Glance]) -> None:
            self.limits.check_stream(client.uid, len(tasks))  # others may be open by now
            then(found)

        asked = dict.fromkeys((*tasks, *also))
        self.storage.gather(Glances(tuple(asked)), client.reads(request, seen))

    def follow(self, client: Client, request: Request) -> None:
        fields = request.fields
        token = fields.get("token")
        if token is not None and self.storage.reader.token(token) is None:
            raise Refused("follow: the token is none of this daemon's; take an event's own")

        def go_on(found: list[Glance]) -> None:
            client.reply(request.id, {})
            there = {each.id for each in found}  # the ends of others were told, and they are gone
            tasks = [task for task in fields["tasks"] if task in there]
            stream = Stream(client, request.id, tasks, is_follow=True)
            stream.token, stream.after = token, fields.get("after", 0)
            stream.progress = fields.get("progress", False)
            self.streams.open(stream, found)

        self._watch(client, request, go_on)

    def wait(self, client: Client, request: Request) -> None:
        tasks = request.fields["tasks"]
        within = self.cycles.waiter(client, request.fields.get("within"))
        others = self.cycles.others(within)

        def go_on(found: list[Glance]) -> None:
            now = self.cycles.others(within)
            own = [each for each in found if each.id in set(tasks)]
            if within and now is not None and (why := self.cycles.endless(within, own, now, found)):
                if now == others:
                    raise why
                self.wait(client, request)  # what was found may be older than that: look again
                return
            client.reply(request.id, {})
            stream = Stream(client, request.id, tasks, is_follow=False)
            stream.within = within
            self.streams.open(stream, own)

        also = [task for waits in (others or {}).values() for task in waits]
        self._watch(client, request, go_on, also)

    def stop(self, client: Client, request: Request) -> None:
        """Close one of the client's streams."""
        self.streams.close(client, request.fields["stream"])
        client.reply(request.id, {})


def _missing(client: Client, tasks: list[int], found: Sequence[Row | Glance]) -> list[int]:
    """Those of the tasks that are not known, or not this client's."""
    known = {each.id for each in found if client.owner in (None, each.owner)}
    return [task for task in tasks if task not in known]

"""Why a task waits: the answer to ``why``, in one sentence, with what to do.

The first reason counts that would keep it waiting even if all others were gone: the daemon itself,
what the task waits for, a pause, a limit, a place. The store is asked at that moment, by the same
query by which tasks are taken.
"""

from __future__ import annotations

import time
from typing import Any

from taskd.errors import UnknownTask
from taskd.master.attempts import Dispatch, Pauses
from taskd.master.attempts.limits import advice, in_words
from taskd.master.clients.client import Client
from taskd.master.clients.clients import Handler
from taskd.master.clients.taskviews import TaskViews
from taskd.master.loop import Storage
from taskd.model.task import State
from taskd.protocol.server_side import Request
from taskd.record import Record
from taskd.store.queries import Shown, Told, WhyBlocked
from taskd.store.values import Obstacle

NOTHING = "nothing: it goes on by itself"

_ENDED = {
    State.SUCCEEDED: ("it waits for nothing: it has succeeded", "nothing"),
    State.FAILED: ("it waits for nothing: it has failed", "`taskctl retry {}` runs it again"),
    State.CANCELLED: ("it waits for nothing: it is cancelled", "`taskctl retry {}` runs it again"),
}


class Reason(Record):
    """``kind``: one word for what it waits for; ``text``: a sentence; ``do``: what to do."""

    kind: str
    text: str
    do: str


class Reasons(Record):
    storage: Storage
    views: TaskViews
    dispatch: Dispatch
    pauses: Pauses

    def handlers(self) -> dict[str, Handler]:
        return {"why": self.why}

    def why(self, client: Client, request: Request) -> None:
        task = request.fields["task"]

        def shown(found: list[Told]) -> None:
            if not found or client.owner not in (None, found[0].row.owner):
                raise UnknownTask(f"no task {task}")

            def blocked(obstacle: Obstacle | None) -> None:
                reason = self._reason(found[0], obstacle, client.owner is None)
                told = {"id": task, "state": found[0].row.state.value, **reason._asdict()}
                client.reply(request.id, told | {"limit": _told(obstacle, client.owner is None)})

            self.storage.ask(WhyBlocked(task), client.reads(request, blocked))

        self.storage.gather(Shown((task,), time.time()), client.reads(request, shown))

    def _reason(self, told: Told, obstacle: Obstacle | None, may_name: bool) -> Reason:
        row = told.row
        if row.state in _ENDED:
            text, do = _ENDED[row.state]
            return Reason(row.state.value, text, do.format(row.id))
        shown = self.views.view(told)
        if row.state is State.HELD:
            why = shown["reason"] or "it is held"
            return Reason("held", why, f"`taskctl retry {row.id}`, once that is put right")
        if row.state is State.RUNNING:
            on = f"it runs on {row.revision}" if row.revision else "it runs"
            why = f": {shown['reason']}" if shown["reason"] else ""
            return Reason("running", on + why, f"`taskctl follow {row.id}` shows its progress")
        if row.state is State.SCHEDULED:
            return _scheduled(shown)
        if (trouble := self.views.trouble()) is not None:
            return Reason("daemon", trouble, "see `taskctl status`, and put that right")
        if (why := self.pauses.why(row.queue, row.name)) is not None:
            return Reason("paused", *_apart(why))
        if obstacle is not None:
            if may_name:
                return Reason("limit", in_words(obstacle), advice(obstacle))
            text = f"waits for the limit {obstacle.limit.name!r}, which is full"
            return Reason("limit", text, NOTHING)
        if (why := self.dispatch.why_full(row.queue)) is not None:
            do = "a higher concurrency stands in taskd.toml, and is taken up by a deploy"
            return Reason("queue", why, do)
        if shown["reason"]:
            return Reason("queued", shown["reason"], NOTHING)
        return Reason("queued", "it is about to start, behind what is ready before it", NOTHING)


def _scheduled(shown: dict[str, Any]) -> Reason:
    if shown["reason"] and shown["run_at"] is None:
        return Reason("others", shown["reason"], NOTHING)
    if shown["run_at"] is None or shown["run_at"] > 9e10:
        return Reason("others", shown["reason"] or "waits for another task", NOTHING)
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(shown["run_at"]))
    why = f" ({shown['reason']})" if shown["reason"] else ""
    return Reason("time", f"is not to start before {at}{why}", NOTHING)


def _apart(why: str) -> tuple[str, str]:
    """A pause's sentence, and its command."""
    text, _, command = why.partition("; go on: ")
    return text, f"`{command}` ends that" if command else NOTHING


def _told(obstacle: Obstacle | None, may_name: bool) -> dict[str, Any] | None:
    """For scripts; None: no limit keeps it."""
    if obstacle is None:
        return None
    limit, holders = obstacle.limit, obstacle.holders if may_name else ()
    return {
        "name": limit.name,
        "key": obstacle.key if may_name else None,
        "concurrency": limit.concurrency,
        "every": limit.every,
        "burst": limit.burst,
        "source": limit.source,
        "held": obstacle.held,
        "wait": obstacle.wait,
        "holders": [each._asdict() for each in holders],
    }

"""The requests that change tasks by hand: cancel, retry, change of many, checkpoint.

As in ``task_requests``, a handler answers by ``client.written``, or raises Refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from taskd.errors import Meanwhile, Refused, StoreError
from taskd.master.attempts import Attempts, Dispatch
from taskd.master.clients.client import Client
from taskd.master.clients.clients import Handler
from taskd.master.clients.queues import Queues
from taskd.master.clients.shares import Shares
from taskd.master.loop import Storage
from taskd.model.task import ENDED, State
from taskd.protocol.server_side import Request
from taskd.record import Record
from taskd.store.api import Alter, Applied, Cancel, Retry
from taskd.store.queries import Glance, Glances

_ALTERS = ("queue", "priority", "delay", "due")


class Changing(Record):
    storage: Storage
    attempts: Attempts
    dispatch: Dispatch
    queues: Queues
    shares: Shares

    def handlers(self) -> dict[str, Handler]:
        return {
            "cancel": self.cancel,
            "retry": self.retry,
            "change": self.change,
            "checkpoint": self.checkpoint,
        }

    def cancel(self, client: Client, request: Request) -> None:
        def done(result: Any) -> dict[str, Any]:
            self._cancelled(client, request.fields["task"], result.state)
            return {"state": result.state.value, "was": result.was.value}

        self._one(client, request, self._operation(client, request, "cancel"), done)

    def retry(self, client: Client, request: Request) -> None:
        def done(result: Any) -> dict[str, Any]:
            self.dispatch.kick()
            return {"state": result.value}

        self._one(client, request, self._operation(client, request, "retry"), done)

    def change(self, client: Client, request: Request) -> None:
        """Each of the tasks for itself, all in one commit."""
        tasks, do = dict.fromkeys(request.fields["tasks"]), request.fields["do"]
        make = self._operation(client, request, do)
        outcomes: dict[int, Applied | StoreError] = {}

        def noted(task: int) -> Callable[[Applied | StoreError], None]:
            def note(outcome: Applied | StoreError) -> None:
                outcomes[task] = outcome
                if len(outcomes) == len(tasks):
                    self._changed(client, request, outcomes)

            return note

        self.storage.write_together([(make(task), noted(task)) for task in tasks])

    def _changed(
        self, client: Client, request: Request, outcomes: dict[int, Applied | StoreError]
    ) -> None:
        done, passed, refused = [], [], []
        for task, outcome in outcomes.items():
            result: Any = outcome.result if isinstance(outcome, Applied) else outcome
            if isinstance(result, StoreError):
                client.written(request, result)
                return
            if isinstance(result, Meanwhile):
                passed.append(task)
            elif isinstance(result, Refused):
                refused.append({"task": task, "why": str(result)})
            elif request.fields["do"] == "cancel" and result.was in ENDED:
                passed.append(task)
            else:
                done.append(task)
                if request.fields["do"] == "cancel":
                    self._cancelled(client, task, result.state)
                elif request.fields.get("queue") is not None:
                    self.attempts.forget(task)  # who can take it is found out anew there
        self.dispatch.on_waiting(True)
        client.written(request, {"done": done, "passed": passed, "refused": refused})

    def checkpoint(self, client: Client, request: Request) -> None:
        task = request.fields["task"]

        def seen(found: list[Glance]) -> None:
            if not found or client.owner not in (None, found[0].owner):
                raise Refused(f"no task {task}")
            if found[0].state is not State.RUNNING:
                raise Refused(
                    f"task {task} is {found[0].state.value}: only one that runs can leave"
                )
            self.attempts.ask(task, "leave", f"asked by user {client.uid}")
            client.reply(request.id, {"asked": True})

        self.storage.gather(Glances((task,)), client.reads(request, seen))

    def _operation(
        self, client: Client, request: Request, do: str
    ) -> Callable[[int], Cancel | Retry | Alter]:
        """Makes the operation for a task. Raises Refused."""
        fields, now = request.fields, time.time()
        only = None if fields.get("only") is None else State(fields["only"])
        owner = client.owner
        if do == "cancel":
            return lambda task: Cancel(task, owner, now, only)
        if self.storage.damage is not None:  # what is written to a damaged file may be lost
            raise self.storage.damage
        if do == "retry":
            start, step, share = (
                bool(fields.get("from_start")),
                fields.get("step"),
                self.shares.of(client),
            )
            if start and step:
                raise Refused("retry: from the start, or from a step; say one of them")
            return lambda task: Retry(task, owner, now, share, only, start, step)
        given: dict[str, Any] = {name: fields.get(name) for name in _ALTERS}
        if _count(given.values()) == 0:
            raise Refused("change: what is to be changed? A queue, a priority or a time")
        if given["delay"] is not None and given["due"] is not None:
            raise Refused("change: delay and due are both given; a task is due at one time")
        if given["priority"] is not None:
            self.shares.check_priority(client, given["priority"])
        if given["queue"] is not None:
            self.queues.check(client, given["queue"])
        return lambda task: Alter(task, owner, now, only, **given)

    def _cancelled(self, client: Client, task: int, state: State) -> None:
        if state is State.RUNNING:
            self.attempts.ask(task, "cancel", f"cancelled by user {client.uid}")

    def _one(
        self,
        client: Client,
        request: Request,
        make: Callable[[int], Cancel | Retry | Alter],
        done: Callable[[Any], dict[str, Any]],
    ) -> None:
        def written(outcome: Applied | StoreError) -> None:
            result: Any = outcome.result if isinstance(outcome, Applied) else outcome
            client.written(request, result if isinstance(result, Refused) else done(result))

        self.storage.write(make(request.fields["task"]), written)


def _count(values: Iterable[Any]) -> int:
    return sum(value is not None for value in values)

"""The requests about schedules: which there are, pause, resume, and a run by hand.

As in ``task_requests``, a handler answers by ``client.reply`` or ``written``, or raises Refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from taskd import log
from taskd.errors import NotAllowed, Refused, StoreError
from taskd.master.attempts import Dispatch
from taskd.master.clients.client import Client
from taskd.master.clients.clients import Handler
from taskd.master.loop import Storage
from taskd.master.schedules import Schedules
from taskd.protocol.server_side import Request
from taskd.record import Record
from taskd.store.api import Applied, Operation
from taskd.store.queries import Schedules as Asked
from taskd.store.schedule_api import PauseSchedule, ResumeSchedule, RunNow
from taskd.store.values import Scheduled


class ScheduleRequests(Record):
    storage: Storage
    dispatch: Dispatch
    schedules: Schedules

    def handlers(self) -> dict[str, Handler]:
        return {
            "schedules": self.list_schedules,
            "pause_schedule": self.pause,
            "resume_schedule": self.resume,
            "run_schedule": self.run,
        }

    def list_schedules(self, client: Client, request: Request) -> None:
        _operators_only(client)

        def shown(rows: list[Scheduled]) -> None:
            client.reply(request.id, {"schedules": self.schedules.told(rows)})

        self.storage.ask(Asked(), client.reads(request, shown))

    def pause(self, client: Client, request: Request) -> None:
        name = _name(client, request)

        def done(is_new: bool) -> dict[str, Any]:
            log.info("schedule paused", name=name, uid=client.uid)
            return {"was": not is_new}

        self._change(client, request, PauseSchedule(name, client.uid, time.time()), done)

    def resume(self, client: Client, request: Request) -> None:
        name = _name(client, request)

        def done(was: bool) -> dict[str, Any]:
            log.info("schedule resumed", name=name, uid=client.uid)
            return {"was": was}

        operation = ResumeSchedule(name, request.fields.get("catch_up"))
        self._change(client, request, operation, done)

    def run(self, client: Client, request: Request) -> None:
        """A task now, beside the slots."""
        name, fields = _name(client, request), request.fields
        schedule = self.schedules.get(name)
        if schedule is None:
            raise Refused(f"no schedule {name!r} that can run; see `taskctl schedules`")
        is_forced = bool(fields.get("force")) or schedule.overlap == "run"
        task = self.schedules.task_of(schedule, fields["submission"], time.time())

        def done(made: Any) -> dict[str, Any]:
            log.info("schedule run by hand", name=name, uid=client.uid, task=made.task)
            self.dispatch.on_waiting(False)
            return {"id": made.task, "created": made.created}

        self._change(client, request, RunNow(name, task, is_forced), done)

    def _change(
        self,
        client: Client,
        request: Request,
        operation: Operation,
        done: Callable[[Any], dict[str, Any]],
    ) -> None:
        def written(outcome: Applied | StoreError) -> None:
            result = outcome.result if isinstance(outcome, Applied) else outcome
            if isinstance(result, Refused):
                client.written(request, result)
                return
            self.schedules.refresh()
            client.written(request, done(result))

        self.storage.write(operation, written)


def _operators_only(client: Client) -> None:
    if not client.is_control:
        raise NotAllowed("only an operator may do this (by control.sock)")


def _name(client: Client, request: Request) -> str:
    _operators_only(client)
    return str(request.fields["name"])

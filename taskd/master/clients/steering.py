"""The requests that steer what is started: pause and resume.

As in ``task_requests``, a handler answers by ``client.written``, or raises Refused.
"""

from __future__ import annotations

import time
from typing import Any

from taskd import log
from taskd.errors import NotAllowed, Refused, StoreError
from taskd.master.attempts import Dispatch, Pauses
from taskd.master.attempts.pauses import named
from taskd.master.clients.client import Client
from taskd.master.clients.clients import Handler
from taskd.master.clients.queues import Queues
from taskd.master.loop import Storage
from taskd.protocol.server_side import Request
from taskd.record import Record
from taskd.store.api import Applied, Pause, Resume
from taskd.store.concurrency_api import SetConcurrency
from taskd.store.values import Scope


class Steering(Record):
    storage: Storage
    dispatch: Dispatch
    pauses: Pauses
    queues: Queues

    def handlers(self) -> dict[str, Handler]:
        return {
            "pause": self.pause,
            "resume": self.resume,
            "set_concurrency": self.set_concurrency,
        }

    def pause(self, client: Client, request: Request) -> None:
        scope, fields = _scope(client, request), request.fields
        why = fields.get("why") or ""
        operation = Pause(scope, client.uid, time.time(), fields.get("seconds"), why)

        def done(is_new: bool) -> dict[str, Any]:
            log.info("paused", what=named(scope), uid=client.uid, why=why)
            return {"was": not is_new}

        self._change(client, request, operation, done)

    def resume(self, client: Client, request: Request) -> None:
        scope = _scope(client, request)

        def done(was: bool) -> dict[str, Any]:
            if was:
                log.info("resumed", what=named(scope), uid=client.uid)
            return {"was": was}

        self._change(client, request, Resume(scope), done)

    def set_concurrency(self, client: Client, request: Request) -> None:
        fields = request.fields
        _scope(client, request)
        queue, tasks, why = fields["queue"], fields.get("concurrency"), fields.get("why") or ""
        if tasks is not None:
            self.queues.check(client, queue)

        def done(was: bool) -> dict[str, Any]:
            log.info("concurrency set", queue=queue, tasks=tasks, uid=client.uid, why=why)
            return {"was": was}

        seconds = fields.get("seconds")
        operation = SetConcurrency(queue, tasks, client.uid, time.time(), seconds, why)
        self._change(client, request, operation, done)

    def _change(
        self,
        client: Client,
        request: Request,
        operation: Pause | Resume | SetConcurrency,
        done: Any,
    ) -> None:
        def written(outcome: Applied | StoreError) -> None:
            result = outcome.result if isinstance(outcome, Applied) else outcome
            if isinstance(result, Refused):
                client.written(request, result)
                return
            self.pauses.look()
            self.dispatch.concurrency.look()
            self.dispatch.wake_due()
            self.dispatch.kick()
            client.written(request, done(result))

        self.storage.write(operation, written)


def _scope(client: Client, request: Request) -> Scope:
    if not client.is_control:
        raise NotAllowed("only an operator may do this (by control.sock)")
    queue, name = request.fields.get("queue") or "", request.fields.get("task") or ""
    if queue and name:
        raise Refused(f"{request.op}: say a queue or a task, not both")
    return Scope(queue, name)

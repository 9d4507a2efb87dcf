"""The requests about the daemon and its revisions: one handler for each operation.

As in ``task_requests``, a handler answers by ``client.reply``, or raises Refused.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import taskd
from taskd.config import Config
from taskd.errors import DeployRefused, NotAllowed, Refused
from taskd.master.attempts import Attempts, Pauses
from taskd.master.clients.client import Client
from taskd.master.clients.clients import Handler
from taskd.master.clients.queues import Queues
from taskd.master.deploy import Deploy, How
from taskd.master.fleet import Revision, Revisions, Workers
from taskd.master.loop import Caller, Life, Storage, Troubles
from taskd.master.service import Check, Stop
from taskd.model.revision import LIVE
from taskd.model.routing import Held, route
from taskd.posix import memory
from taskd.protocol.server_side import Request
from taskd.record import Record
from taskd.revision import confirmed, release
from taskd.store.queries import WaitingGroups
from taskd.store.values import Group

HOLDS = 10
"""Tasks named as keeping a revision alive."""


class DaemonRequests(Record):
    """``checks``: what taskctl doctor shows (see ``service.checks``)."""

    troubles: Troubles
    life: Life
    config: Config
    confirmed_path: str
    storage: Storage
    revisions: Revisions
    workers: Workers
    attempts: Attempts
    deploy: Deploy
    stop: Stop
    checks: Callable[[], list[Check]]
    queues: Queues
    pauses: Pauses

    def handlers(self) -> dict[str, Handler]:
        return {
            "status": self.status,
            "revisions": self.list_revisions,
            "reload": self.begin_deploy,
            "rollback": self.begin_deploy,
            "drain": self.drain,
            "shutdown": self.shutdown,
        }

    # ── looking ──────────────────────────────────────────────────────────────────────────────

    def status(self, client: Client, request: Request) -> None:
        def counted(queues: dict[str, Any]) -> None:
            client.reply(request.id, self._status(client, queues))

        self.queues.in_status(client, client.reads(request, counted))

    def _status(self, client: Client, queues: dict[str, Any]) -> dict[str, Any]:
        current = self.revisions.current
        assert current is not None
        link, is_operator = self.config.app.release, client.owner is None
        return {
            "pid": os.getpid(),
            "taskd": taskd.__version__,
            "revision": current.name,
            "release": current.path,
            "confirmed": current.path,  # 0.2's taskctl reads it; a start uses this one
            "link": link,
            # A message is valid text: other bytes of a path are escaped.
            "symlink": os.fsencode(os.path.realpath(link)).decode(errors="backslashreplace"),
            "stopping": self.life.is_stopping,
            "control": client.is_control,
            **queues,
            "paused": self.pauses.told() if is_operator else [],
            "note": self.life.note if is_operator else "",
            "problems": self.troubles.sentences() if is_operator else [],
            "checks": [*self.checks(), *self.revisions.checks()] if is_operator else [],
            "deploy": self.deploy.under_way() if is_operator else None,
        }

    def list_revisions(self, client: Client, request: Request) -> None:
        def grouped(groups: list[Group]) -> None:
            client.reply(request.id, self._revisions(client, groups))

        self.storage.gather(WaitingGroups(), client.reads(request, grouped))

    def _revisions(self, client: Client, groups: list[Group]) -> dict[str, Any]:
        live = self.revisions.live()
        homes = {name: route(live, name, None) for name in {group.name for group in groups}}
        waiting: dict[int, int] = {}
        for group in groups:
            if not isinstance(home := homes[group.name], Held):
                waiting[home.number] = waiting.get(home.number, 0) + group.waiting
        found = [
            self._revision(client, r, waiting.get(r.number, 0))
            for r in sorted(self.revisions, key=lambda r: -r.number)
            if r.state in LIVE
        ]
        # The reason why a release was refused may name tasks of every user.
        known = self.revisions.rejected if client.owner is None else []
        return {"revisions": found, "rejected": [each._asdict() for each in known]}

    def _revision(self, client: Client, revision: Revision, waiting: int) -> dict[str, Any]:
        workers = self.workers.of(revision)
        busy = [worker.running for worker in workers if worker.running is not None]
        shown = [running for running in busy if client.owner in (None, running.owner)]
        pids = [pid for pid in (*(worker.pid for worker in workers), revision.zygote.pid) if pid]
        return {
            "revision": revision.name,
            "path": revision.path,
            "hash": revision.fingerprint or "",
            "state": revision.state.value,
            "workers": len(workers),
            "running": len(busy),
            "waiting": waiting,
            "age": max(0.0, time.time() - revision.since),
            "memory": memory.of(pids),
            "holds": [{"task": running.task, "name": running.name} for running in shown[:HOLDS]],
        }

    # ── changing ─────────────────────────────────────────────────────────────────────────────

    def begin_deploy(self, client: Client, request: Request) -> None:
        """``reload``: to the release that is named, or to the symlink's. ``rollback``: to the
        release that was deployed before this one."""
        _operators_only(client)
        fields, goes_back = request.fields, request.op == "rollback"
        release, settings = fields.get("release"), ""
        if goes_back:
            found = confirmed.read(self.confirmed_path)
            if found is None or found.previous is None:
                raise DeployRefused("there is no release before this one to go back to")
            release, settings = found.previous, found.previous_settings
        how = How(bool(fields.get("plan")), bool(fields.get("allow_held")), goes_back, settings)
        self.deploy.begin(release, Caller(client.number, request.id), how)

    def _meant(self, word: str) -> Revision:
        """The live revision of that name, path, or end of a path; of two at the same path the one
        that drains. Raises Refused if there is none, or if there are several paths."""
        found = [r for r in self.revisions.live() if release.is_meant(r.path, word)]
        if not found:
            raise Refused(f"no revision {word!r} is alive; see `taskctl revisions`")
        if len(paths := {r.path for r in found}) > 1:
            raise Refused(f"{word!r} may be {' or '.join(sorted(paths))}: say more of its path")
        return found[-1]

    def drain(self, client: Client, request: Request) -> None:
        """Tell how many tasks keep a draining revision alive and, if asked to, end them."""
        _operators_only(client)
        found, how = self._meant(request.fields["revision"]), request.fields.get("how") or "finish"
        name = found.name
        if found is self.revisions.current:
            raise Refused(
                f"{name} is the current revision: deploy another one first, then drain it"
            )
        busy = [w for w in self.workers.of(found) if w.running is not None]
        for worker in busy:
            assert worker.running is not None
            if how == "checkpoint":
                self.attempts.ask(worker.running.task, "leave", f"{name} is drained")
            elif how == "now":
                self.workers.kill(worker, f"{name} was drained at once")
        asked = 0 if how == "finish" else len(busy)
        client.reply(request.id, {"running": len(busy), "asked": asked})

    def shutdown(self, client: Client, request: Request) -> None:
        """Begin a stop, which answers at its very end; with ``plan``, tell what it would end."""
        _operators_only(client)
        if request.fields.get("plan"):
            client.reply(request.id, self.stop.plan())
        else:
            caller = Caller(client.number, request.id)
            self.stop.wish(caller, request.fields.get("keep"))


def _operators_only(client: Client) -> None:
    if not client.is_control:
        raise NotAllowed("only an operator may do this (by control.sock)")

"""What each request about the daemon and its revisions does: one handler an operation.

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
from taskd.master.attempts import Attempts
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
from taskd.revision import confirmed, naming

HOLDS = 10
"""Tasks named as keeping a revision alive."""


class DaemonRequests:
    def __init__(
        self,
        troubles: Troubles,
        life: Life,
        config: Config,
        confirmed_path: str,
        storage: Storage,
        revisions: Revisions,
        workers: Workers,
        attempts: Attempts,
        deploy: Deploy,
        stop: Stop,
        checks: Callable[[], list[Check]],
        queues: Queues,
    ) -> None:
        """``checks``: what is in force on this machine."""
        self._troubles = troubles
        self._life = life
        self._link = config.app.release
        self._confirmed = confirmed_path
        self._storage = storage
        self._revisions = revisions
        self._workers = workers
        self._attempts = attempts
        self._deploy = deploy
        self._stop = stop
        self._checks = checks
        self._queues = queues

    def handlers(self) -> dict[str, Handler]:
        return {
            "status": self.status,
            "revisions": self.revisions,
            "reload": self.reload,
            "rollback": self.rollback,
            "drain": self.drain,
            "shutdown": self.shutdown,
        }

    # ── looking ──────────────────────────────────────────────────────────────────────────────

    def status(self, client: Client, request: Request) -> None:
        current = self._revisions.current
        assert current is not None
        is_operator = client.owner is None
        client.reply(
            request.id,
            {
                "pid": os.getpid(),
                "taskd": taskd.__version__,
                "revision": current.name,
                "release": current.path,
                "confirmed": current.path,  # 0.2's taskctl reads it; a start uses this one
                "link": self._link,
                "symlink": _shown(os.path.realpath(self._link)),
                "stopping": self._life.is_stopping,
                "control": client.is_control,
                **self._queues.in_status(client),
                "note": self._life.note if is_operator else "",
                "problems": self._troubles.sentences() if is_operator else [],
                "checks": self._checks() if is_operator else [],
                "deploy": self._deploy.under_way() if is_operator else None,
            },
        )

    def revisions(self, client: Client, request: Request) -> None:
        live = self._revisions.live()
        waiting: dict[int, int] = {}
        for (name, _), count in self._storage.reader.waiting().items():
            home = route(live, name, None)
            if not isinstance(home, Held):
                waiting[home.number] = waiting.get(home.number, 0) + count
        found = [
            self._revision(client, r, waiting.get(r.number, 0))
            for r in sorted(self._revisions, key=lambda r: -r.number)
            if r.state in LIVE
        ]
        # Why a release was refused may name anybody's tasks.
        known = self._revisions.rejected if client.owner is None else []
        rejected = [each._asdict() for each in known]
        client.reply(request.id, {"revisions": found, "rejected": rejected})

    def _revision(self, client: Client, revision: Revision, waiting: int) -> dict[str, Any]:
        workers = self._workers.of(revision)
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

    def reload(self, client: Client, request: Request) -> None:
        self._begin(client, request, request.fields.get("release"))

    def rollback(self, client: Client, request: Request) -> None:
        _operators_only(client)
        found = confirmed.read(self._confirmed)
        if found is None or found.previous is None:
            raise DeployRefused("there is no release before this one to go back to")
        self._begin(client, request, found.previous, goes_back=True)

    def _begin(
        self, client: Client, request: Request, release: str | None, goes_back: bool = False
    ) -> None:
        _operators_only(client)
        plan, allow = request.fields.get("plan"), request.fields.get("allow_held")
        how = How(bool(plan), bool(allow), goes_back)
        self._deploy.begin(release, Caller(client.number, request.id), how)

    def _meant(self, word: str) -> Revision:
        """The live revision that a user names by its name, its path or the end of that: of two at
        the same path the one that drains. Raises Refused if there is none, or more than one."""
        found = [r for r in self._revisions.live() if naming.is_meant(r.path, word)]
        if not found:
            raise Refused(f"no revision {word!r} is alive; see `taskctl revisions`")
        if len(paths := {r.path for r in found}) > 1:
            raise Refused(f"{word!r} may be {' or '.join(sorted(paths))}: say more of its path")
        return found[-1]

    def drain(self, client: Client, request: Request) -> None:
        """What keeps a draining revision alive, and asking it to go."""
        _operators_only(client)
        found, how = self._meant(request.fields["revision"]), request.fields.get("how") or "finish"
        name = found.name
        if found is self._revisions.current:
            raise Refused(
                f"{name} is the current revision: deploy another one first, then drain it"
            )
        busy = [w for w in self._workers.of(found) if w.running is not None and w.running.attempt]
        for worker in busy:
            assert worker.running is not None
            if how == "checkpoint":
                self._attempts.ask(worker.running.task, "leave", f"{name} is drained")
            elif how == "now":
                self._workers.kill(worker, f"{name} was drained at once")
        asked = 0 if how == "finish" else len(busy)
        client.reply(request.id, {"running": len(busy), "asked": asked})

    def shutdown(self, client: Client, request: Request) -> None:
        """Answered at the very end, by the stop."""
        _operators_only(client)
        if request.fields.get("plan"):
            client.reply(request.id, self._stop.plan())
        else:
            caller = Caller(client.number, request.id)
            self._stop.wish(caller, request.fields.get("keep"))


def _operators_only(client: Client) -> None:
    if not client.is_control:
        raise NotAllowed("only an operator may do this (by control.sock)")


def _shown(path: str) -> str:
    """A path as a message can carry it: what is not valid text in it is escaped."""
    return os.fsencode(path).decode(errors="backslashreplace")

"""The old master's live state as a snapshot: what each part carries over an exec.

Runs with everything quiet (no write pending, no fork open). A plain copy: whatever needs a
decision was decided before. Its counterpart is ``load``; the encoding is in ``upgrade.snapshot``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from taskd.master.fleet.running import Running
from taskd.model.upgrade import Phase
from taskd.upgrade import snapshot
from taskd.upgrade.snapshot import Carried

if TYPE_CHECKING:
    from taskd.master.clients.clients import Client
    from taskd.master.clients.streams import Stream
    from taskd.master.fleet.revision import Revision
    from taskd.master.fleet.worker import Worker
    from taskd.master.loop.wire import Messages
    from taskd.master.master import Master


def dump(master: Master, wishes: list[int], phase: Phase) -> bytes:
    """Everything the next image needs."""
    carried = Carried()
    deploy = master.deploy
    assert deploy.target is not None
    fields = {
        "pid": os.getpid(),
        "config": deploy.config.table,
        "config_source": deploy.config.source,
        "config_before": master.config.table,  # for the way back: it was not refused
        "places": list(master.places),
        "ledger": [[entry.fd, entry.kind.value, entry.name] for entry in master.ledger.entries()],
        "revisions": [_revision(each, carried) for each in master.revisions],
        "workers": [_worker(each, carried) for each in master.workers],
        "orphans": [_running(each) for each in _orphans(master)],
        "strangers": [_stranger(each, carried) for each in master.doorway.strangers()],
        "clients": [_client(master, each, carried) for each in master.clients],
        "deploy": {
            "phase": phase.value,
            "target": deploy.target.number,
            "paused_at": deploy.paused_at,
            "callers": [[each.client, each.request] for each in deploy.callers],
            "plan": deploy.plan,
            "unfit": deploy.unfit,
            "hook": carried.put(deploy.hook.encode()),
        },
        "wishes": wishes,
        "not_ours": sorted(master.not_ours),
        "given": sorted(master.given),
        "note": master.note,
        "after_drain": master.after_drain.previous,
        "rejected": [list(each) for each in master.revisions.rejected],
    }
    return snapshot.encode(fields, carried)


def _revision(revision: Revision, carried: Carried) -> dict[str, Any]:
    return {
        "number": revision.number,
        "path": revision.path,
        "name": revision.name,
        "app": revision.app._asdict(),
        "state": revision.state.value,
        "fingerprint": revision.fingerprint,
        "tasks": revision.tasks,
        "forks": revision.forks,
        "zygote_id": revision.zygote_id,
        "zygote_retired": revision.zygote_retired,
        "python": revision.python,
        "version": revision.version,
        "taskd": revision.taskd,
        "since": revision.since,
        "draining_since": revision.draining_since,
        "pid": revision.pid,
        "start": revision.start,
        "is_foreign": revision.is_foreign,
        "channel": _channel(revision.channel, carried),
    }


def _channel(channel: Messages | None, carried: Carried) -> list[list[int]] | None:
    if channel is None:
        return None
    return [carried.put(channel.unread), carried.put(channel.wire.unsent)]


def _worker(worker: Worker, carried: Carried) -> dict[str, Any]:
    return {
        "id": worker.id,
        "revision": worker.revision.number,
        "state": worker.state.value,
        "pid": worker.pid,
        "start": worker.start,
        "served": worker.served,
        "is_ours": worker.is_ours,
        "is_orphan": worker.is_orphan,
        "limits": None if worker.limits is None else list(worker.limits),
        "is_grouped": worker.is_grouped,
        "asked_to_leave": worker.asked_to_leave,
        "has_slot": worker.slot_fd >= 0,
        "running": None if worker.running is None else _running(worker.running),
        "channel": _channel(worker.channel, carried),
    }


def _running(running: Running) -> dict[str, Any]:
    return {name: getattr(running, name) for name in Running.__slots__}


def _orphans(master: Master) -> list[Running]:
    """Attempts in motion whose worker is not ours to command (see ``recovery``)."""
    return [r for r in master.attempts.all() if master.attempts.worker_of(r.task) is None]


def _stranger(channel: Messages, carried: Carried) -> dict[str, Any]:
    return {"fd": channel.wire.fd, "channel": _channel(channel, carried)}


def _client(master: Master, client: Client, carried: Carried) -> dict[str, Any]:
    return {
        "number": client.number,
        "uid": client.uid,
        "is_control": client.is_control,
        "side": client.side.export(),
        "unread": carried.put(client.side.rest),
        "unsent": carried.put(client.wire.unsent),
        "streams": [_stream(each) for each in master.streams.of(client)],
    }


def _stream(stream: Stream) -> dict[str, Any]:
    return {
        "id": stream.id,
        "tasks": stream.tasks,
        "is_follow": stream.is_follow,
        "after": stream.after,
        "progress": stream.progress,
        "open": list(stream.open),
        "within": stream.within,
    }

"""The old master's live state as a snapshot.

Runs while no write is pending and no fork is open. It copies and decides nothing. Each class says
beside its fields what of it crosses an exec (``export``, ``restored``); the map as a whole is
specified in ``upgrade.snapshot``. Counterpart: ``load``.
"""

from __future__ import annotations

import os

from taskd.master.master import Master
from taskd.model.upgrade import Phase
from taskd.upgrade import snapshot
from taskd.upgrade.snapshot import Carried


def dump(master: Master, wishes: list[int], phase: Phase) -> bytes:
    """Everything the next image needs."""
    carried = Carried()
    fields = {
        "pid": os.getpid(),
        "config": master.deploy.config.table,
        "config_source": master.deploy.config.source,
        "config_before": master.config.table,  # for the way back: it was not refused
        "places": list(master.places),
        "ledger": [[entry.fd, entry.kind.value, entry.name] for entry in master.carried()],
        "revisions": [revision.export(carried) for revision in master.revisions],
        "workers": [worker.export(carried) for worker in master.workers],
        "orphans": [running.export() for running in master.attempts.without_worker()],
        "strangers": [
            {"fd": fd, "channel": stranger.channel.export(carried)}
            for fd, stranger in master.introductions.strangers.items()
        ],
        "clients": [
            client.export(carried)
            | {"streams": [stream.export() for stream in master.streams.of(client)]}
            for client in master.clients.crossing()
        ],
        "deploy": master.deploy.export(phase, carried),
        "wishes": wishes,
        "not_ours": sorted(master.children.not_ours),
        "given": sorted(master.listeners.given),
        "note": master.life.note,
        "after_drain": master.after_drain.previous,
        "rejected": [list(each) for each in master.revisions.rejected],
    }
    return snapshot.encode(fields, carried)

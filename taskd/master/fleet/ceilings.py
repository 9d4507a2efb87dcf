"""How many workers more there may be. In the master.

Two ceilings, for all queues and revisions together: [app] max_workers; and descriptors, of which a
worker takes DESCRIPTORS here, and some are kept for clients, who ask what is going on. A deploy's
probe worker is not asked for here: what serves must not keep a deploy from its proof. Workers that
leave take no place under max_workers, unless there are as many again: they run no task, and may
take seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskd.model.revision import LIVE
from taskd.model.worker import WorkerState
from taskd.posix import limits

if TYPE_CHECKING:
    from taskd.master.master import Master

CROWDED = "no more workers are started"
"""What the trouble is called when descriptors are short."""

DESCRIPTORS = 2
"""A worker's channel and its slot."""

_COMING = frozenset({WorkerState.ASKED, WorkerState.STARTING})
_GOING = frozenset({WorkerState.LEAVING, WorkerState.DEAD})


def below_ceiling(master: Master, missing: int) -> int:
    """How many of ``missing`` workers [app] max_workers allows now. For the rest, idle ones go:
    they are of another revision, or bound to another queue's limits, or would have been taken. (The
    worker of a deploy that is under way stays.)"""
    workers = list(master.workers)
    going = sum(worker.state in _GOING for worker in workers)
    most = master.config.max_workers
    room = most - len(workers) + min(going, most)
    idle = [w for w in workers if w.state is WorkerState.IDLE and w.revision.state in LIVE]
    for worker in idle[: max(0, missing - room)]:
        master.workers.retire(worker)
    return min(missing, room)


def with_descriptors(master: Master, missing: int) -> int:
    """How many of ``missing`` workers leave the clients' descriptors alone."""
    if missing <= 0:
        return 0
    coming = sum(w.state in _COMING and w.channel is None for w in master.workers)
    return min(missing, (limits.left() - kept_for_clients()) // DESCRIPTORS - coming)


def kept_for_clients() -> int:
    return min(64, max(4, limits.most() // 8))


def why_crowded() -> str:
    return (
        f"of {limits.most()} descriptors that the daemon may have (LimitNOFILE=, ulimit -n), the "
        f"last {kept_for_clients()} are for clients"
    )

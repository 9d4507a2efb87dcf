"""How many workers more there may be.

Two ceilings, for all queues and revisions together: [app] max_workers; and descriptors, of which a
worker takes DESCRIPTORS in the master, and some are kept for clients, who ask what is going on. A
deploy's probe worker is not counted: what serves must not keep a deploy from its proof. Workers
that leave take no place under max_workers, unless there are as many again: they run no task, and
may take seconds.
"""

from __future__ import annotations

from collections.abc import Iterable

from taskd.master.fleet.worker import Worker
from taskd.model.worker import WorkerState
from taskd.posix import limits

CROWDED = "no more workers are started"
"""What the trouble is called when descriptors are short."""

DESCRIPTORS = 2
"""A worker's channel and its slot."""

_COMING = frozenset({WorkerState.ASKED, WorkerState.STARTING})
_GOING = frozenset({WorkerState.LEAVING, WorkerState.DEAD})


def room(workers: Iterable[Worker], most: int) -> int:
    """How many workers more [app] max_workers, which is ``most``, allows; may be negative."""
    states = [worker.state for worker in workers]
    going = sum(state in _GOING for state in states)
    return most - len(states) + min(going, most)


def with_descriptors(workers: Iterable[Worker], missing: int) -> int:
    """How many of ``missing`` workers leave the clients' descriptors alone."""
    if missing <= 0:
        return 0
    coming = sum(w.state in _COMING and w.channel is None for w in workers)
    return min(missing, (limits.left() - kept_for_clients()) // DESCRIPTORS - coming)


def kept_for_clients() -> int:
    return min(64, max(4, limits.most() // 8))


def why_crowded() -> str:
    return (
        f"of {limits.most()} descriptors that the daemon may have (LimitNOFILE=, ulimit -n), the "
        f"last {kept_for_clients()} are for clients"
    )

"""How many workers more there may be.

Two ceilings, for all queues and revisions together: [app] max_workers; and the master's
descriptors, of which a worker takes DESCRIPTORS and some are kept for clients, so that ``status``
works. Neither ceiling holds back a deploy's probe worker: workers that serve must not keep a
deploy from its proof. Workers that leave run no task and may take seconds: as many as max_workers
do not count.
"""

from __future__ import annotations

from collections.abc import Iterable

from taskd.master.fleet.worker import Worker
from taskd.model.worker import WorkerState
from taskd.posix import limits

CROWDED = "no more workers are started"
"""The trouble's name when descriptors are short."""

DESCRIPTORS = 2
"""Descriptors per worker: its channel and its slot."""

_COMING = frozenset({WorkerState.ASKED, WorkerState.STARTING})
_GOING = frozenset({WorkerState.LEAVING, WorkerState.DEAD})


def room(workers: Iterable[Worker], max_workers: int) -> int:
    """How many more workers [app] max_workers allows; may be negative."""
    states = [worker.state for worker in workers]
    going = sum(state in _GOING for state in states)
    return max_workers - len(states) + min(going, max_workers)


def with_descriptors(workers: Iterable[Worker], missing: int) -> int:
    """How many of ``missing`` workers may be started without taking the clients' descriptors."""
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

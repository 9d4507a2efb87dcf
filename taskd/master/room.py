"""How many workers more there may be. In the master.

[app] max_workers is the ceiling for all queues and revisions together. A deploy's probe worker is
not asked for here: what serves must not keep a deploy from its proof.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskd.model.worker import WorkerState

if TYPE_CHECKING:
    from taskd.master.core import Master

_GOING = frozenset({WorkerState.LEAVING, WorkerState.DEAD})


def room_for(master: Master, missing: int) -> int:
    """How many of ``missing`` workers there is room for now. For the rest, idle ones go: they are
    of another revision, or bound to another queue's limits, or would have been taken."""
    workers = list(master.workers)
    room = master.config.max_workers - len(workers)
    going = sum(worker.state in _GOING for worker in workers)
    idle = [worker for worker in workers if worker.state is WorkerState.IDLE]
    for worker in idle[: max(0, missing - room - going)]:
        master.workers.retire(worker)
    return min(missing, room)

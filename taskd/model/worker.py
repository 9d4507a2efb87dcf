"""A worker's life, as the master sees it.

Pure. A wish of the master (leave, cancel, retire) is sent and remembered, and does not change the
state; the state changes only by facts that the worker, its zygote or the store report.

    ask ─→ asked ─forked→ starting ─idle→ idle ─claim→ claimed ─sent→ running ─ended→ ending
                                           ↑ ↑_______unclaim_|                           |
                                           └──────────────────idle──────────────────────┘
    plan leads from idle to planning, and the next idle back. retire leads from idle to leaving; a
    death leads from everywhere to dead.
"""

from __future__ import annotations

from enum import Enum


class WorkerState(str, Enum):
    """Where a worker is in its life."""

    ASKED = "asked"  # its zygote was asked to fork it
    STARTING = "starting"  # it has a pid
    IDLE = "idle"
    PLANNING = "planning"  # answers whether its revision can take what waits and runs
    CLAIMED = "claimed"  # a task is being claimed for it in the store
    RUNNING = "running"
    ENDING = "ending"  # its END is being recorded
    LEAVING = "leaving"  # told to exit
    DEAD = "dead"


class WorkerEvent(str, Enum):
    """What happens to a worker."""

    FORKED = "forked"
    IDLE = "idle"
    PLAN = "plan"
    CLAIM = "claim"
    UNCLAIM = "unclaim"
    SENT = "sent"
    ENDED = "ended"
    RETIRE = "retire"
    DIED = "died"


_S, _E = WorkerState, WorkerEvent

WORKERS: dict[tuple[WorkerState, WorkerEvent], WorkerState] = {
    (_S.ASKED, _E.FORKED): _S.STARTING,
    (_S.STARTING, _E.IDLE): _S.IDLE,
    (_S.IDLE, _E.PLAN): _S.PLANNING,
    (_S.PLANNING, _E.IDLE): _S.IDLE,
    (_S.IDLE, _E.CLAIM): _S.CLAIMED,
    (_S.CLAIMED, _E.UNCLAIM): _S.IDLE,
    (_S.CLAIMED, _E.SENT): _S.RUNNING,
    (_S.RUNNING, _E.ENDED): _S.ENDING,
    (_S.ENDING, _E.IDLE): _S.IDLE,
    (_S.IDLE, _E.RETIRE): _S.LEAVING,
    (_S.STARTING, _E.RETIRE): _S.LEAVING,
    **{(state, _E.DIED): _S.DEAD for state in _S if state is not _S.DEAD},
}

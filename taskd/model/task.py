"""A task's life: the states that are stored, and every change between them that is allowed.

Pure. The store writes a row's state only by an entry of ``CHANGES`` (with ``table.after``); a pair
that is not listed is a bug in taskd and raises.

    submit ─→ queued ─claim─→ running ─succeed─→ succeeded
                ↑  ↑             │ ├──fail─────→ failed
       due time │  └──requeue────┤ ├──cancel───→ cancelled
             scheduled ←─delay───┘ └──hold─────→ held ──retry→ queued

``wait``: a cancelled task that is retried is scheduled if it was to run after tasks that have not
succeeded yet.

Shown beside the stored state, from the row: ``retrying`` (queued or scheduled again after a
failed attempt) and ``resuming`` (queued or running with saved state).
"""

from __future__ import annotations

from enum import Enum

from taskd.record import Record

COMMAND = "command"
"""The name of the built-in task that runs a program (``taskctl run``)."""


class State(str, Enum):
    """The stored state of a task; its value is what the store, the wire and JSON carry."""

    QUEUED = "queued"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    HELD = "held"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Change(str, Enum):
    """What happened to a task."""

    CLAIM = "claim"
    SUCCEED = "succeed"
    FAIL = "fail"
    REQUEUE = "requeue"
    DELAY = "delay"
    HOLD = "hold"
    CANCEL = "cancel"
    DUE = "due"
    WAIT = "wait"
    POSTPONE = "postpone"
    RETRY = "retry"


CHANGES: dict[tuple[State, Change], State] = {
    (State.QUEUED, Change.CLAIM): State.RUNNING,
    (State.QUEUED, Change.CANCEL): State.CANCELLED,
    (State.QUEUED, Change.HOLD): State.HELD,
    (State.QUEUED, Change.POSTPONE): State.SCHEDULED,
    (State.SCHEDULED, Change.DUE): State.QUEUED,
    (State.SCHEDULED, Change.CANCEL): State.CANCELLED,
    (State.RUNNING, Change.SUCCEED): State.SUCCEEDED,
    (State.RUNNING, Change.FAIL): State.FAILED,
    (State.RUNNING, Change.REQUEUE): State.QUEUED,
    (State.RUNNING, Change.DELAY): State.SCHEDULED,
    (State.RUNNING, Change.HOLD): State.HELD,
    (State.RUNNING, Change.CANCEL): State.CANCELLED,
    (State.HELD, Change.RETRY): State.QUEUED,
    (State.HELD, Change.CANCEL): State.CANCELLED,
    (State.FAILED, Change.RETRY): State.QUEUED,
    (State.CANCELLED, Change.RETRY): State.QUEUED,
    (State.CANCELLED, Change.WAIT): State.SCHEDULED,
}

ENDED = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})
"""States that only ``retry`` leaves."""

SETTLED = ENDED | {State.HELD}
"""States in which ``wait`` has nothing left to wait for."""


class OnDeploy(str, Enum):
    """What a running task of an older revision does once a newer one is confirmed."""

    FINISH = "finish"
    CHECKPOINT = "checkpoint"


class How(str, Enum):
    """How an attempt ended, as it is kept and shown; a later version may know more of them."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    PUT_OFF = "put off"
    SLEEPING = "sleeping"
    YIELDED = "yielded"
    INTERRUPTED = "interrupted"
    CRASHED = "crashed"
    NOT_BEGUN = "not begun"
    HELD = "held"
    CANCELLED = "cancelled"


class Budgets(Record):
    """Counts of ended attempts, each with a limit of its own (see ``endings``).

    ``retries``: attempts that ended by an exception of the task. ``crashes``: attempts in a row
    whose process died without being asked to leave, and that had saved nothing new.
    ``interruptions``: attempts in a row that were asked to leave and had saved nothing new.
    ``put_off``: attempts in a row in which the task put itself off and had saved nothing new.
    """

    retries: int = 0
    crashes: int = 0
    interruptions: int = 0
    put_off: int = 0

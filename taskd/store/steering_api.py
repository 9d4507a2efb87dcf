"""The store's contract about what is done to a task by hand: a part of ``api``, whose rules hold
here as well."""

from __future__ import annotations

from taskd.model.task import State
from taskd.record import Record
from taskd.store.submit_api import Share


class Cancel(Record):
    """queued, scheduled, held → cancelled, without the reason that it had; of a running task the
    wish is stored, without an event (Applied.task is None), and stays until a retry. A task that is
    over stays as it is. Result: Cancelled.

    ``owner`` None is an operator. Refused with UnknownTask, for another owner's task too; with
    Meanwhile if the task is not in the state ``only`` (None: any).
    """

    task: int
    owner: int | None
    at: float
    only: State | None = None


class Cancelled(Record):
    """``state`` is the state after; ``was`` before. Both ``running``: the wish is on disk."""

    state: State
    was: State


class Retry(Record):
    """held, failed, cancelled → queued, budgets fresh, with what was saved. Result: State.

    A task that was cancelled while it waited for others (``Submit.after``) waits for them again,
    scheduled; refused if one has been removed, or has ended so that it would be cancelled at once.

    Error, reason, end and the wish to cancel are cleared; attempts go on counting. Refused with
    UnknownTask and Meanwhile as in Cancel; in any other state; with KeyConflict if another task has
    taken the task's key meanwhile; and with LimitReached if the task is over and beyond ``share``
    now.

    ``start``: what was saved is dropped, and the progress. ``step``: of what was saved, that step
    or loop is dropped, with all that was kept after it, but for ``ctx.state``; refused where there
    is none of that name, or what came after it is not known.
    """

    task: int
    owner: int | None
    at: float
    share: Share | None = None
    only: State | None = None
    start: bool = False
    step: str | None = None


class Alter(Record):
    """A task that waits (queued, scheduled or held) moves to ``queue``, gets ``priority``, or is
    due after ``delay`` seconds (0: now) or at ``due``, as in Submit; None: as it was. Result:
    State.

    queued → scheduled, scheduled → queued, as the time says; it gets a new turn. Refused with
    UnknownTask and Meanwhile as in Cancel; in any other state; for another time if it is held, or
    would expire before.
    """

    task: int
    owner: int | None
    at: float
    only: State | None = None
    queue: str | None = None
    priority: int | None = None
    delay: float | None = None
    due: float | None = None

"""Checks of an operation against a task's row and its owner's share: allowed, refused, changed.

Pure.
"""

from __future__ import annotations

from math import isnan

from taskd import errors
from taskd.model.task import CHANGES, ENDED, Change, How, State
from taskd.record import Record
from taskd.store.api import (
    HORIZON,
    Settle,
    Share,
    Submit,
)
from taskd.store.turns import Place

ENDS = {
    State.SUCCEEDED: Change.SUCCEED,
    State.FAILED: Change.FAIL,
    State.QUEUED: Change.REQUEUE,
    State.SCHEDULED: Change.DELAY,
    State.HELD: Change.HOLD,
    State.CANCELLED: Change.CANCEL,
}
"""The change that leads from running to each state an attempt can end in."""


class Task(Record):
    """The columns of a task's row that an operation needs before it changes the row."""

    id: int
    owner: int
    name: str
    version: int
    queue: str
    state: State
    attempt: int
    key: str | None
    revision: str | None
    cancel_wished: int
    saved_version: int | None
    group: int
    priority: int
    worker: bytes | None
    waits_for: int | None

    @property
    def place(self) -> Place:
        """Where the task waits once it is ready again."""
        return Place(self.queue, self.owner, self.priority, self.attempt > 0)


def heeding_the_wish(task: Task, end: Settle) -> Settle:
    """``end`` as it is recorded: after a wish to cancel, every state but succeeded is cancelled."""
    if end.state not in ENDS:
        raise ValueError(f"an attempt does not end in {end.state.value}")
    if end.state is State.SCHEDULED and (end.delay is None or isnan(end.delay)):
        raise ValueError(f"task {task.id} is to be scheduled, but for no time")
    if task.cancel_wished and end.state is not State.SUCCEEDED:
        why = end.reason if end.state in ENDED else end.if_cancelled
        how = end.how if end.how in (How.FAILED, How.CRASHED) else How.CANCELLED.value
        end = end._replace(state=State.CANCELLED, reason=why, how=how)
    if end.delay is not None and end.state is not State.SCHEDULED:
        end = end._replace(delay=None)
    if end.result is not None and end.state is not State.SUCCEEDED:
        end = end._replace(result=None)
    return end


def check_horizon(new: Submit, now: float) -> None:
    """Raises TooOld if the submission, which is unknown, may have been known once."""
    if new.made is not None and new.made < now - HORIZON:
        days = (now - new.made) / 86400
        raise errors.TooOld(
            f"this submission was made {days:.0f} days ago, and whether it was carried out then is "
            "no longer known: it was not run now. If its work is not done, submit it anew"
        )


def check_same(new: Submit, taken: tuple[int, str, str, bytes]) -> None:
    """Raises KeyConflict if the live task with ``new``'s key (``taken``: its id, name, state and
    arguments) is another task."""
    number, name, state, args = taken
    if (name, args) == (new.name, new.args):
        return
    what = "other arguments" if name == new.name else "another name"
    raise errors.KeyConflict(
        f'the key "{new.key}" is that of task {number} ({name}, {state}), which has {what}; wait '
        "for it, cancel it, or use another key"
    )


def check_retry(task: Task, taken: tuple[int, str, str, bytes] | None) -> None:
    """Raises Refused if ``task`` cannot be retried. ``taken``: the live task with its key."""
    if (task.state, Change.RETRY) not in CHANGES:
        raise errors.Refused(
            f"task {task.id} is {task.state.value}; only a held, failed or cancelled task can "
            "be retried"
        )
    if taken is not None and taken[0] != task.id:
        raise errors.KeyConflict(
            f'task {task.id} cannot be retried: its key "{task.key}" is now that of task '
            f"{taken[0]}, which is {taken[2]}; wait for that one, or cancel it first"
        )


def check_room(share: Share | None) -> None:
    """Raises LimitReached if no owner may add a task just now."""
    if share is not None and share.full is not None:
        raise errors.LimitReached(share.full)


def check_share(owner: int, owned: tuple[int, int], size: int, share: Share) -> None:
    """Raises LimitReached if a further task with ``size`` bytes of arguments is beyond ``share``.
    ``owned``: the tasks and bytes of arguments that ``owner`` has. Nothing of that task may be
    written yet."""
    check_room(share)
    tasks, total = owned
    if share.tasks is not None and tasks >= share.tasks:
        has, limit = f"{tasks:,} tasks", f"tasks_per_user is {share.tasks:,}"
    elif share.bytes is not None and total + size > share.bytes:
        has, limit = f"{total:,} bytes of arguments", f"bytes_per_user is {share.bytes:,}"
    else:
        return
    raise errors.LimitReached(
        f"user {owner} has {has} that are not over, and [access] {limit}: try again once some have "
        "ended"
    )

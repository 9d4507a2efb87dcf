"""What is done to one task by hand: cancel, retry, move, another priority or time.

Runs in the writer thread (see ``transaction``).
"""

from __future__ import annotations

from taskd.errors import Meanwhile, ProtocolError, Refused
from taskd.model.task import ENDED, Change, State
from taskd.protocol.saved import RawSaved
from taskd.store import family, ordering, sql, turns
from taskd.store.api import Alter, Applied, Cancel, Cancelled, Retry
from taskd.store.row_checks import Task, check_retry, check_share
from taskd.store.transaction import Transaction

_SAVED = "select value from saved where task = ?"
_TIMES = "select run_at, promised, next_key, next_at, iif(attempt = 0, expires, null), not_before"
_TIMES += " from tasks where id = ?"
_ALTER = (
    "update tasks set queue = ?, priority = ?, state = ?, turn = ?, run_at = ?, promised = ?,"
    " next_at = ?, not_before = ?, blocked = null where id = ?"
)
_START = "update tasks set saved_version = null, group_id = ?, progress = null where id = ?"
_STEP = "update tasks set progress = null where id = ?"


def cancel(tx: Transaction, cancel: Cancel) -> Applied:
    task = _chosen(tx, cancel)
    if task.state in ENDED:
        return Applied(Cancelled(task.state, task.state), None)
    if task.state is State.RUNNING:
        tx.run("update tasks set cancel_wished = 1 where id = ?", task.id)
        return Applied(Cancelled(task.state, task.state), None)
    state = tx.change(task, Change.CANCEL, cancel.at, None)
    tx.run(sql.END, state.value, cancel.at, task.id)
    return Applied(Cancelled(state, task.state), task.id)


def retry(tx: Transaction, retry: Retry) -> Applied:
    task = _chosen(tx, retry)
    check_retry(task, tx.run(sql.KEY, task.owner, task.key).fetchone())
    if task.state in ENDED and retry.share is not None:
        owned = tx.tally.owned(task.owner)
        check_share(task.owner, owned, tx.size(task.id), retry.share)
    cut = _cut(tx, task, retry)
    if (waits := ordering.wait_again(tx, task.id, retry.at)) is not None:
        return Applied(waits, task.id)
    ordering.retried(tx, task.id)
    family.retried(tx, task.id, retry.start)
    group = _forget(tx, task, cut)
    state = tx.change(task, Change.RETRY, retry.at, None, group)
    tx.run(sql.RETRY, state.value, turns.next_at(tx.connection, task.place), task.id)
    tx.limits.queued(task.id)
    return Applied(state, task.id)


def _cut(tx: Transaction, task: Task, retry: Retry) -> bytes | None:
    """What is left of what is saved; b"": nothing, None: all of it. Raises Refused."""
    if retry.step is not None:
        found = tx.run(_SAVED, task.id).fetchone()
        if found is None:
            raise Refused(f"task {task.id} has nothing saved: there is no step {retry.step!r}")
        try:
            saved = RawSaved.decode(found[0])
        except ProtocolError as error:
            raise Refused(f"what task {task.id} has saved cannot be read: {error}") from None
        try:
            saved.drop_from(retry.step)
        except ValueError as error:
            raise Refused(f"task {task.id}: {error}") from None
        return saved.encode()
    return b"" if retry.start and task.saved_version is not None else None


def _forget(tx: Transaction, task: Task, cut: bytes | None) -> int | None:
    """Write that; the group that the task is in then, if it is another one."""
    if cut is None:
        return None
    if cut:
        tx.run(sql.KEEP, task.id, cut)
        tx.run(_STEP, task.id)
        return None
    group = tx.tally.group(task.name, task.version, tx.tally.shape(task.group))
    tx.run("delete from saved where task = ?", task.id)
    tx.run(_START, group, task.id)
    return group


def alter(tx: Transaction, new: Alter) -> Applied:
    task, now = _chosen(tx, new), tx.clock()
    is_timed = new.delay is not None or new.due is not None
    if task.state is State.RUNNING or task.state in ENDED:
        raise Refused(f"task {task.id} is {task.state.value}: only one that waits can be changed")
    if task.state is State.HELD and is_timed:
        raise Refused(f"task {task.id} is held, and due at no time: retry it")
    run_at, promised, next_key, next_at, expires, not_before = tx.run(_TIMES, task.id).fetchone()
    to = task._replace(
        queue=task.queue if new.queue is None else new.queue,
        priority=task.priority if new.priority is None else new.priority,
    )
    state: State = task.state
    changed = None
    if is_timed:
        due = now + (new.delay or 0.0) if new.due is None else new.due
        if expires is not None and due >= expires:
            raise Refused(f"task {task.id} would expire before it is due")
        if next_key is not None or task.waits_for:  # it waits for another
            next_at = None if next_key is None else due
            if task.waits_for:
                not_before, promised = due, new.due
        elif due > now:
            run_at, promised = due, new.due
            if state is State.QUEUED:
                changed = Change.POSTPONE
        else:
            run_at = promised = None
            if state is State.SCHEDULED:
                changed = Change.DUE
    if changed is not None:
        state = tx.change(task, changed, new.at, None)
    else:
        tx.limits.changing(task.id, task.state)
    if to.queue != task.queue:
        tx.tally.count(task.queue, state, -1)
        tx.tally.count(to.queue, state, 1)
    turn = turns.next_at(tx.connection, to.place) if state is State.QUEUED else None
    values = (to.queue, to.priority, state.value, turn, run_at, promised)
    tx.run(_ALTER, *values, next_at, not_before, task.id)
    if state is State.QUEUED:
        tx.limits.queued(task.id)
    return Applied(state, None if changed is None else task.id)


def _chosen(tx: Transaction, change: Cancel | Retry | Alter) -> Task:
    task = tx.theirs(change.task, change.owner)
    if change.only is not None and task.state is not change.only:
        raise Meanwhile(f"task {task.id} is {task.state.value} by now")
    return task

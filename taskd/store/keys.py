"""Keys: what a submission with a key meets, and what waits behind the task that has it.

Runs in the writer thread, in the open transaction of a batch. A key is held by rows alone:

* by the task that has it and is not over (index ``tasks_key``);
* for a period, by a row of ``keys``, which outlives its task (``args``: a digest of the arguments,
  by which they are compared once the task is gone). One whose task failed or was cancelled holds
  nothing; it goes with the next task of that key, or with its own.

Behind a task that has begun one other may wait: ``tasks.next_key`` is the key that it takes in the
transaction that ends the first (``let_go``). Until then it is scheduled for a time that never comes
(NEVER), so that 0.2 does not start it; ``tasks.next_at`` is when it is due after that.
"""

from __future__ import annotations

from taskd import errors
from taskd.model.task import ENDED, Change, State
from taskd.protocol.submission import JOIN, REFUSE
from taskd.record import Record
from taskd.store import schema, sql, turns
from taskd.store.row_checks import Task, check_room, check_same, check_share
from taskd.store.submit_api import REMOVED, REPLACED, Submit, Submitted
from taskd.store.transaction import Transaction

NEVER = schema.FAR
"""Unix seconds (the year 5138): what waits for another task is scheduled for then."""

DEBOUNCE = 10.0
"""So many delays after the first submission a task that is replaced again and again is due."""

_GONE = 3
"""Old rows of ``keys`` that go with each new one."""

_FACT = (
    "select k.task, k.name, k.args, k.until, t.state, a.value from keys k"
    " left join tasks t on t.id = k.task left join arguments a on a.task = k.task"
    " where k.owner = ? and k.key = ?"
)
_PUT = "insert or replace into keys (owner, key, task, until, name, args) values (?, ?, ?, ?, ?, ?)"
_DROP = "delete from keys where owner = ? and key = ?"
_EXPIRE = (
    "delete from keys where (owner, key) in"
    " (select owner, key from keys indexed by keys_until where until <= ? limit ?)"
)
_BEHIND = (
    "select id from tasks indexed by tasks_next_key"
    f" where owner = ? and next_key = ? and {schema.BEHIND}"
)
_ARGUMENTS = "update arguments set value = ? where task = ?"
_REPLACE = (
    "update tasks set group_id = ?, version = ?, expires_in = ?, expires = ?, next_at = ?"
    " where id = ?"
)
_DUE_AT = "update tasks set run_at = ?, promised = ? where id = ?"
_NOT_BEFORE = "update tasks set not_before = ? where id = ?"
_TIMES = "select submitted, next_at from tasks where id = ?"
_IS_BEHIND = f"select 1 from tasks where id = ? and next_key is not null and {schema.BEHIND}"
_TAKE_KEY = "update tasks set key = next_key, next_key = null where id = ?"
_LEFT_BEHIND = (
    "select b.id from tasks b indexed by tasks_next_key"
    f" where b.next_key is not null and b.{schema.BEHIND} and not exists (select 1 from tasks t"
    f" indexed by tasks_key where t.owner = b.owner and t.key = b.next_key and t.{schema.LIVE})"
)


class Met(Record):
    """``answer``: the submission led to a task that is there. None: it is new; ``is_behind``: and
    waits behind the task that has its key."""

    answer: Submitted | None = None
    is_behind: bool = False


def meet(tx: Transaction, new: Submit) -> Met:
    """What a submission with a key comes to. Raises Refused, or has done what it says."""
    taken = tx.run(sql.KEY, new.owner, new.key).fetchone()
    if taken is None:
        return _in_period(tx, new)
    if new.if_exists == REFUSE:
        raise _is_taken(new, taken[0], f"{taken[1]}, {taken[2]}")
    if new.if_exists == JOIN:
        check_same(new, taken)
        return _joined(tx, new, Submitted(taken[0], False))
    check_same(new, (*taken[:3], new.args))  # another name would be another task
    task = tx.found(taken[0])
    if task.attempt or task.state not in (State.QUEUED, State.SCHEDULED):
        behind = tx.run(_BEHIND, new.owner, new.key).fetchone()
        if behind is None:
            return Met(is_behind=True)
        task = tx.found(behind[0])
        check_same(new, (task.id, task.name, task.state.value, new.args))
    _replace(tx, new, task)
    return _joined(tx, new, Submitted(task.id, False, REPLACED))


def _in_period(tx: Transaction, new: Submit) -> Met:
    found = tx.run(_FACT, new.owner, new.key).fetchone()
    if found is None:
        return Met()
    task, name, digest, until, state, args = found
    if until <= tx.clock() or state in (State.FAILED.value, State.CANCELLED.value):
        return Met()
    said = "removed" if state is None else state
    if new.if_exists == REFUSE:
        raise _is_taken(new, task, f"{name}, {said}, and has the key for a while")
    is_same = args == new.args if args is not None else digest == _digest(new.args)
    check_same(new, (task, name, said, new.args if is_same else b""))
    if state is None:  # an id of a task that is gone would stay for ever
        return Met(Submitted(task, False, REMOVED))
    return _joined(tx, new, Submitted(task, False))


def _joined(tx: Transaction, new: Submit, answer: Submitted) -> Met:
    check_room(new.share)
    tx.run(sql.NEW_SUBMISSION, new.submission, answer.task)
    return Met(answer)


def _is_taken(new: Submit, task: int, what: str) -> errors.KeyConflict:
    return errors.KeyConflict(
        f'the key "{new.key}" is that of task {task} ({what}): nothing was submitted, as '
        f'if_exists = "{REFUSE}" says'
    )


def _replace(tx: Transaction, new: Submit, task: Task) -> None:
    """Give a task that has not begun the arguments and the time of ``new``."""
    size, now = tx.size(task.id), tx.clock()
    tasks, total = tx.tally.owned(task.owner)
    if new.share is not None:
        check_share(task.owner, (tasks - 1, total - size), len(new.args), new.share)
    group = tx.tally.group(new.name, new.version, new.shape)
    tx.tally.wait(task.group, -1)
    tx.tally.wait(group, 1)
    tx.tally.own(task.owner, 0, len(new.args) - size)
    submitted, _ = tx.run(_TIMES, task.id).fetchone()
    due = due_at(new, now, submitted)
    is_behind = task.key is None
    expires = None if new.expires is None else now + new.expires
    next_at = due if is_behind else None
    tx.run(_ARGUMENTS, new.args, task.id)
    tx.run(_REPLACE, group, new.version, new.expires, expires, next_at, task.id)
    tx.limits.replaced(task.id, task.state, new.limits)
    if task.state is State.SCHEDULED and task.waits_for:
        tx.run(_NOT_BEFORE, due, task.id)
        return
    if is_behind or task.state is State.QUEUED:
        return
    if due is None:
        _wake(tx, task._replace(group=group), now)
    else:
        tx.run(_DUE_AT, due, None if new.due is None else due, task.id)


def due_at(new: Submit, now: float, first: float | None = None) -> float | None:
    """When it is due; None: it is. ``first``: when a task that ``new`` replaces was submitted."""
    if new.due is not None:
        return new.due if new.due > now else None
    if new.delay is None or not new.delay > 0:  # NaN is not
        return None
    due = now + new.delay
    if first is not None and new.delay:
        latest = DEBOUNCE * new.delay if new.at_most is None else new.at_most
        due = min(due, first + latest)
    return due if due > now else None


def keep(tx: Transaction, new: Submit, task: int) -> None:
    """A task with a key is there: whoever had that key for a period has it no more."""
    now = tx.clock()
    if new.key_for is None:
        tx.run(_DROP, new.owner, new.key)
        return
    tx.run(_EXPIRE, now, _GONE)
    tx.run(_PUT, new.owner, new.key, task, now + new.key_for, new.name, _digest(new.args))


def _digest(args: bytes) -> bytes:
    import hashlib  # slow to import, and seldom needed

    return hashlib.sha256(args).digest()


def let_go(tx: Transaction) -> tuple[int, ...]:
    """Some tasks are over: those that were behind them, and are queued or due some time now."""
    woken = []
    for task in tx.ended:
        if task.key is None:
            if task.state is State.SCHEDULED:  # perhaps behind another: from now on its key is
                tx.run(_TAKE_KEY, task.id)  # what a retry has to ask for
            continue
        behind = tx.run(_BEHIND, task.owner, task.key).fetchone()
        if behind is not None:
            _take_place(tx, behind[0])
            woken.append(behind[0])
    tx.ended.clear()
    return tuple(woken)


def is_behind(tx: Transaction, task: int) -> bool:
    """Whether it waits until another with its key is over."""
    return bool(tx.fetch(_IS_BEHIND, task))


def left_behind(tx: Transaction) -> list[int]:
    """The same, after a taskd that does not know of it has ended some."""
    left = [task for (task,) in tx.fetch(_LEFT_BEHIND)]
    for task in left:
        _take_place(tx, task)
    return left


def _take_place(tx: Transaction, number: int) -> None:
    task, now = tx.found(number), tx.clock()
    _, due = tx.run(_TIMES, number).fetchone()
    tx.run(_TAKE_KEY, number)
    if task.waits_for:
        tx.run(_NOT_BEFORE, due, number)
    elif due is None or due <= now:
        _wake(tx, task, now)
    else:
        tx.run(_DUE_AT, due, due, number)


def _wake(tx: Transaction, task: Task, now: float) -> None:
    assert task.state not in ENDED
    state = tx.change(task, Change.DUE, now, None)
    tx.run(sql.WAKE, state.value, turns.next_at(tx.connection, task.place), task.id)
    tx.limits.queued(task.id)

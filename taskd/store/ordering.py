"""Order: tasks that wait until others have ended, and what an end does for those that wait for it.

Runs in the writer thread. A task that waits is one row, scheduled for FAR, which no Wake reaches (a
taskd of 0.2 lets it wait as well); ``tasks.waits_for`` counts its open edges. An edge is open while
``met`` is null; 1: it is met; 0: its task has ended before it was.

Every end is told to those that wait for it in its own transaction (see ``ends``), but to a bounded
number: the rest is written down (the table ``ends``: the task that has ended, and the last waiter
that was told), and GoOn does it, in as many transactions as it takes. An end counts as long as it
stands: a retry takes it out of ``ends`` again.
"""

from __future__ import annotations

from taskd import errors
from taskd.model.order import IfFailed, after_end
from taskd.model.task import ENDED, Change, State
from taskd.store import keys, schema, turns
from taskd.store.api import Recheck, Submit
from taskd.store.meter import Fetch
from taskd.store.transaction import Transaction
from taskd.store.values import Dependency

_STATES = "select id, owner, state from tasks where id in (select value from json_each(?))"
_NEW = "insert into edges (task, waits_on, met) values (?, ?, ?)"
_OF = "select waits_on, met from edges where task = ? order by waits_on"
_TOLD = (
    "select e.waits_on, t.state from edges e left join tasks t on t.id = e.waits_on"
    " where e.task = ? order by e.met is not null, e.waits_on limit ?"
)
_IS_AWAITED = "select 1 from edges indexed by edges_open where waits_on = ? and met is null limit 1"
_AWAITED = (
    "select task from edges indexed by edges_open"
    " where waits_on = ? and met is null and task > ? order by task limit ?"
)
_MEET = "update edges set met = ? where task = ? and waits_on = ?"
_NOTE = "insert or replace into ends (task, told) values (?, 0)"
_DROP = "delete from ends where task = ?"
_FIRST = "select e.task, e.told, t.state from ends e left join tasks t on t.id = e.task limit 1"
_GO_ON = "update ends set told = ? where task = ?"
_WAITER = (
    f"select waits_for, if_failed, not_before, state = 'scheduled' and {schema.FOR_OTHERS}"
    " from tasks where id = ?"
)
_LESS = "update tasks set waits_for = waits_for - 1 where id = ?"
_RELEASE = (
    "update tasks set state = ?, run_at = null, waits_for = 0, blocked = null, moves = null,"
    " turn = ? where id = ?"
)
_BEHIND = "update tasks set waits_for = 0, next_at = not_before where id = ?"
_LATER = "update tasks set run_at = ?, waits_for = 0 where id = ?"
_CANCEL = "update tasks set state = ?, run_at = null, ended = ?, reason = ? where id = ?"
_WAIT_AGAIN = (
    "update tasks set state = ?, run_at = ?, waits_for = ?, ended = null, reason = null,"
    " error = null, cancel_wished = 0, retries = 0, crashes = 0, interruptions = 0, put_off = 0,"
    " expires = null, used = null where id = ?"
)
_OPEN_FROM = (
    "select distinct waits_on from edges indexed by edges_open"
    " where met is null and waits_on > ? order by waits_on limit ?"
)
SHIFT = (
    "update tasks indexed by tasks_scheduled set not_before = not_before + ?"
    f" where {schema.SCHEDULED} and {schema.FOR_OTHERS} and not_before is not promised"
)


def of(fetch: Fetch, task: int, most: int) -> tuple[Dependency, ...]:
    """What the task waits or has waited for; first what it still waits for."""
    return tuple(
        Dependency(other, None if state is None else State(state))
        for other, state in fetch(_TOLD, task, most)
    )


def states(tx: Transaction, new: Submit) -> dict[int, State]:
    """Of those that ``new`` is to come after. Raises UnknownTask for one that is not there."""
    if not new.after:
        return {}
    wanted = [task for task in new.after if schema.is_id(task)]
    found = {
        task: State(state)
        for task, owner, state in tx.fetch(_STATES, str(wanted))
        if new.after_any or owner == new.owner
    }
    if missing := [task for task in new.after if task not in found]:
        raise errors.UnknownTask(
            f"no task {missing[0]}: a task can come after one that is there (retention has removed "
            "it, if it was there long ago)"
        )
    return found


def is_open(state: State, if_failed: IfFailed) -> bool:
    """Whether a task still waits for another in that state."""
    return not (state is State.SUCCEEDED or (if_failed is IfFailed.RUN and state in ENDED))


def enter(tx: Transaction, task: int, new: Submit, found: dict[int, State]) -> None:
    """Write the edges of a task that was just made; cancel it, if one of them says so."""
    for other, state in found.items():
        tx.run(_NEW, task, other, None if is_open(state, new.if_failed) else 1)
    for other, state in found.items():
        if state in ENDED and after_end(new.if_failed, state) is Change.CANCEL:
            _cancel(tx, task, other, state, new.at)
            return


def wait_again(tx: Transaction, task: int, at: float) -> State | None:
    """For a retry: have a task that was cancelled while it waited wait again, if anything of what
    it waited for has not come; None: all has. Raises Refused if it would be cancelled at once."""
    ((_, named, *_),) = tx.fetch(_WAITER, task)
    if named is None:
        return None
    if_failed = IfFailed(named)
    unmet = [other for other, met in tx.fetch(_OF, task) if met != 1]
    found = {other: State(state) for other, _, state in tx.fetch(_STATES, str(unmet))}
    for other in unmet:
        if other not in found:
            raise errors.Refused(
                f"task {task} cannot be retried: task {other}, after which it was to run, has been "
                "removed; submit it anew"
            )
        if found[other] in ENDED and after_end(if_failed, found[other]) is Change.CANCEL:
            raise errors.Refused(
                f"task {task} cannot be retried: task {other}, after which it is to run, "
                f"{_ended(found[other])}; retry that one first"
            )
    still = 0
    for other, state in found.items():
        still += is_open(state, if_failed)
        tx.run(_MEET, None if is_open(state, if_failed) else 1, task, other)
    if not still:
        return None
    state = tx.change(tx.found(task), Change.WAIT, at, None)
    tx.run(_WAIT_AGAIN, state.value, schema.FAR, still, task)
    return state


def recheck(tx: Transaction, order: Recheck) -> int | None:
    found = [other for (other,) in tx.fetch(_OPEN_FROM, order.after, order.limit)]
    for task, _, state in tx.fetch(_STATES, str(found)):
        if State(state) in ENDED:
            tx.run(_NOTE, task)
    return found[-1] if len(found) == order.limit else None


def retried(tx: Transaction, task: int) -> None:
    """Its end counts no more."""
    tx.run(_DROP, task)


def note(tx: Transaction, ended: list[int]) -> bool:
    """Write down which of these ends somebody waits for; whether any is."""
    noted = [task for task in dict.fromkeys(ended) if tx.fetch(_IS_AWAITED, task)]
    for task in noted:
        tx.run(_NOTE, task)
    return bool(noted)


def pass_on(tx: Transaction, most: int) -> list[int]:
    """Tell up to ``most`` waiting tasks of the ends that are written down; which."""
    told: list[int] = []
    while len(told) < most:
        first = tx.fetch(_FIRST)
        if not first:
            break
        ((task, behind, state),) = first
        if state is None or State(state) not in ENDED:  # 0.2 has retried it
            tx.run(_DROP, task)
            continue
        left = most - len(told)
        waiters = [waiter for (waiter,) in tx.fetch(_AWAITED, task, behind, left)]
        for waiter in waiters:
            _end_for(tx, waiter, task, State(state))
        told += waiters
        if len(waiters) < left:
            tx.run(_DROP, task)
        else:
            tx.run(_GO_ON, waiters[-1], task)
    return told


def _end_for(tx: Transaction, waiter: int, task: int, ended: State) -> None:
    """``task`` has ended, for which ``waiter`` has waited."""
    ((waits_for, named, not_before, is_waiting),) = tx.fetch(_WAITER, waiter)
    if not is_waiting:  # 0.2 has cancelled it
        tx.run(_MEET, 0, waiter, task)
        return
    change = after_end(IfFailed(named), ended)
    if change is Change.CANCEL:
        _cancel(tx, waiter, task, ended, tx.clock())
    if change is not Change.DUE:
        return
    tx.run(_MEET, 1, waiter, task)
    if waits_for > 1:
        tx.run(_LESS, waiter)
        return
    _release(tx, waiter, not_before)


def _release(tx: Transaction, waiter: int, not_before: float | None) -> None:
    now = tx.clock()
    if keys.is_behind(tx, waiter):
        tx.run(_BEHIND, waiter)
        return
    if not_before is not None and not_before > now:
        tx.run(_LATER, not_before, waiter)
        return
    found = tx.found(waiter)
    state = tx.change(found, Change.DUE, now, None)
    tx.run(_RELEASE, state.value, turns.next_at(tx.connection, found.place), waiter)
    tx.limits.queued(waiter)


def _cancel(tx: Transaction, waiter: int, task: int, ended: State, at: float) -> None:
    reason = f"was to run after task {task}, which {_ended(ended)}"
    state = tx.change(tx.found(waiter), Change.CANCEL, at, reason)
    tx.run(_CANCEL, state.value, at, reason, waiter)


def _ended(state: State) -> str:
    return "was cancelled" if state is State.CANCELLED else state.value

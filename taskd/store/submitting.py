"""Submitting: a new task, or the one that its submission id or its key already led to.

Runs in the writer thread (see ``transaction``).
"""

from __future__ import annotations

from taskd import errors
from taskd.model.task import State
from taskd.store import family, keys, named, ordering, schema, sql, turns
from taskd.store.api import Applied, Submit, SubmitAll, Submitted
from taskd.store.row_checks import check_horizon, check_share
from taskd.store.submit_api import REPLACED
from taskd.store.transaction import Transaction
from taskd.store.turns import Place


def submit(tx: Transaction, new: Submit) -> Applied:
    try:
        if new.after_new:
            raise errors.Refused("after_new in a request of one task")
        known = _known(tx, new)
        if known is not None:
            return Applied(Submitted(known, False), None)
        if (fact := named.known(tx, new)) is not None:
            return Applied(fact, None)
        if (child := family.known(tx, new)) is not None:
            return Applied(child, None)
        met = keys.Met() if new.key is None else keys.meet(tx, new)
        if (found := met.answer) is not None:
            if new.parent is not None:
                family.enter(tx, new.parent, found.task, False)
            named.keep(tx, new, found.task)
            return Applied(found, None, also=(found.task,) * (found.how == REPLACED))
        if new.share is not None:
            check_share(new.owner, tx.tally.owned(new.owner), len(new.args), new.share)
        task = _insert(tx, new, met.is_behind, ordering.states(tx, new))
        if new.key is not None and not met.is_behind:
            keys.keep(tx, new, task)
        named.keep(tx, new, task)
    except (OverflowError, UnicodeEncodeError) as error:  # at worst, an empty group is written
        raise errors.Refused(f"the task cannot be stored: {error}") from None
    return Applied(Submitted(task, True), task)


def submit_all(tx: Transaction, all_of: SubmitAll) -> Applied:
    before = tx.tally.copy()
    tx.run("savepoint submits")
    try:
        done: list[Submitted] = []
        for new in all_of.tasks:
            done.append(submit(tx, _placed(new, done)).result)
    except errors.Refused:
        tx.run("rollback to submits")
        tx.run("release submits")
        tx.tally = before
        tx.ended.clear()
        raise
    tx.run("release submits")
    return Applied(done, None)


def _placed(new: Submit, done: list[Submitted]) -> Submit:
    """``new`` after the tasks that its request has made before it. Raises Refused."""
    if not new.after_new:
        return new
    if not all(0 <= place < len(done) for place in new.after_new):
        raise errors.Refused("after_new names a task of its request that does not stand before it")
    earlier = [done[place].task for place in new.after_new]
    return new._replace(after=tuple(dict.fromkeys((*new.after, *earlier))), after_new=())


def _known(tx: Transaction, new: Submit) -> int | None:
    """The task that this submission already led to; None: it is new."""
    found = tx.run(sql.SUBMISSION, new.submission).fetchone()
    if found is not None:
        if found[1] != new.owner:
            raise errors.Refused("this submission id is another user's; make a new random one")
        return int(found[0])
    check_horizon(new, tx.clock())
    return None


def _insert(tx: Transaction, new: Submit, is_behind: bool, others: dict[int, State]) -> int:
    now = tx.clock()
    due = keys.due_at(new, now)
    waits_for = sum(ordering.is_open(each, new.if_failed) for each in others.values())
    run_at = schema.FAR if is_behind or waits_for else due
    state = State.QUEUED if run_at is None else State.SCHEDULED
    place = Place(new.queue, new.owner, new.priority, begun=False)
    group = tx.tally.group(new.name, new.version, new.shape)
    task = tx.run(
        sql.NEW_TASK,
        *(new.owner, new.queue, state.value, new.priority, run_at),
        new.retries if new.retries_said is None else new.retries_said,
        *(group, new.name, new.version),
        *(None if new.on_deploy is None else new.on_deploy.value, new.at),
        None if is_behind else new.key,
        None if run_at else turns.next_at(tx.connection, place),
        new.retries_said,
        keys.NEVER if is_behind else None if due is None else new.due,
        new.expires,
        None if new.expires is None else now + new.expires,
        new.timeout,
        *((new.key, due) if is_behind else (None, None)),
        waits_for or None,
        new.if_failed.value if others else None,
        due if waits_for else None,
        "\n".join(new.limits) or None,
    ).lastrowid
    assert task is not None  # an INSERT that did not raise has one
    tx.run("insert into arguments (task, value) values (?, ?)", task, new.args)
    tx.run(sql.NEW_SUBMISSION, new.submission, task)
    tx.run(sql.NEW_EVENT, task, new.at, state.value, 0, None, None)
    tx.tally.count(new.queue, state, 1)
    tx.tally.wait(group, 1)
    tx.tally.own(new.owner, 1, len(new.args))
    if new.parent is not None:
        family.enter(tx, new.parent, task, True)
    if others:
        ordering.enter(tx, task, new, others)
    if new.limits and state is State.QUEUED:
        tx.limits.queued(task)
    return task

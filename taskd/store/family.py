"""Children: tasks that a running task has submitted by name, which a cancel of it reaches.

Runs in the writer thread. A row of ``children`` is a child's identity: its parent, the parent's
generation (how often it was retried from the start), and the name that the parent's code gives it.
A parent that runs again finds by it what it has submitted before. The tie is to the parent's id,
which no attempt, deploy or retry changes.

A parent that is cancelled submits nothing more; then its children are cancelled, to any depth, a
bounded number in a transaction: what is left is written down (``downs``), and GoOn does it. Those
that run are asked to (``Applied.asked``). ``tied`` is 0 for a child that the cancel leaves alone:
one that was submitted detached, or that its key has found.
"""

from __future__ import annotations

from taskd import errors
from taskd.model.task import ENDED, Change, State
from taskd.store.submit_api import Parent, Submit, Submitted
from taskd.store.transaction import Transaction

_GENERATION = "select coalesce(generation, 0), state from tasks where id = ?"
_FIND = "select task from children where parent = ? and generation = ? and name = ?"
_NEW = "insert into children (parent, generation, name, task, tied) values (?, ?, ?, ?, ?)"
_IS_PARENT = "select 1 from children indexed by children_task where parent = ? limit 1"
_NOTE = "insert or replace into downs (parent, generation, told) values (?, ?, 0)"
_FIRST = "select parent, generation, told from downs limit 1"
_TOLD = "update downs set told = ? where parent = ?"
_DROP = "delete from downs where parent = ?"
_DROP_OF = "delete from downs where parent = ? and generation = ?"
_SOME = (
    "select task, tied, generation from children indexed by children_task"
    " where parent = ? and task > ? order by task limit ?"
)
_CANCEL = "update tasks set state = ?, run_at = null, ended = ?, reason = ? where id = ?"
_WISH = "update tasks set cancel_wished = 1 where id = ?"
_NEXT = "update tasks set generation = coalesce(generation, 0) + 1 where id = ?"


def known(tx: Transaction, new: Submit) -> Submitted | None:
    """The child that the parent has submitted by this name before. Raises Refused if it may submit
    none."""
    of = new.parent
    if of is None:
        return None
    parent = tx.look(of.task)
    if parent is None or not (new.after_any or parent.owner == new.owner):
        raise errors.UnknownTask(f"no task {of.task}, so it can have no child")
    if parent.state is not State.RUNNING or parent.attempt != of.attempt:
        raise errors.Refused(
            f"attempt {of.attempt} of task {parent.id} is over: it can submit nothing more"
        )
    found = tx.run(_FIND, parent.id, _generation(tx, parent.id), of.name).fetchone()
    if found is not None:
        return Submitted(found[0], False)
    if parent.cancel_wished:
        raise errors.Refused(f"task {parent.id} is to be cancelled: it can submit nothing more")
    return None


def enter(tx: Transaction, of: Parent, task: int, is_new: bool) -> None:
    """``task`` is the child from now on; ``is_new``: it was made by this submission."""
    tied = is_new and not of.detached
    tx.run(_NEW, of.task, _generation(tx, of.task), of.name, task, int(tied))
    if is_new:
        tx.run("update tasks set parent = ? where id = ?", of.task, task)


def note(tx: Transaction, ended: list[int]) -> bool:
    """Write down which of these have been cancelled and have children; whether any has."""
    found = False
    for task in ended:
        if tx.fetch(_IS_PARENT, task):
            ((generation, state),) = tx.fetch(_GENERATION, task)
            if state == State.CANCELLED.value:
                tx.run(_NOTE, task, generation)
                found = True
    return found


def retried(tx: Transaction, task: int, from_start: bool) -> None:
    """A retry keeps the children that are left; one from the start begins with none, and has those
    of before cancelled."""
    if not tx.fetch(_IS_PARENT, task):
        return
    generation = _generation(tx, task)
    if from_start:
        tx.run(_NOTE, task, generation)
        tx.run(_NEXT, task)
    else:
        tx.run(_DROP_OF, task, generation)


def cancel_some(tx: Transaction, most: int) -> list[int]:
    """Cancel up to ``most`` children of what is written down; which were looked at."""
    done: list[int] = []
    while len(done) < most:
        first = tx.fetch(_FIRST)
        if not first:
            break
        ((parent, upto, behind),) = first
        left = most - len(done)
        some = tx.fetch(_SOME, parent, behind, left)
        for child, tied, generation in some:
            if tied and generation <= upto:
                _cancel(tx, child, parent)
        done += [child for child, *_ in some]
        if len(some) < left:
            tx.run(_DROP, parent)
        else:
            tx.run(_TOLD, some[-1][0], parent)
    return done


def _cancel(tx: Transaction, child: int, parent: int) -> None:
    task = tx.look(child)
    if task is None or task.state in ENDED:
        return
    if task.state is State.RUNNING:
        tx.run(_WISH, child)
        tx.asked.append(child)
        return
    now, reason = tx.clock(), f"its parent, task {parent}, was cancelled"
    state = tx.change(task, Change.CANCEL, now, reason)
    tx.run(_CANCEL, state.value, now, reason, child)


def _generation(tx: Transaction, task: int) -> int:
    ((generation, _),) = tx.fetch(_GENERATION, task)
    return int(generation)

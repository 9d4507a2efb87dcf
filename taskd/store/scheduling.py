"""Schedules in the SQLite store: their definitions, marks and slots.

Runs in the writer thread, in the open transaction of a batch; what is read is read by the loop.

* ``schedules``: one row for each name, also for one that was dropped (``dropped``: when).
  ``pending``: a slot that waits for an earlier run. ``overlaps``: slots in a row that an earlier
  run has kept from running. ``catch_up``: how the slots of a pause that is over are decided.
* ``slots``: one row for each slot that was run (``task``) and for each row of slots that were
  skipped (``reason``, up to ``through``, ``slots`` of them). They outlive their tasks.
* ``schedule_tasks``: a schedule's tasks that are not known to be over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from taskd.errors import Refused
from taskd.model.task import ENDED, State
from taskd.record import Record
from taskd.store import pausing
from taskd.store.api import Applied, Submit, Submitted
from taskd.store.meter import Fetch
from taskd.store.schedule_api import (
    DROPPED,
    Due,
    PauseSchedule,
    ResumeSchedule,
    RunNow,
    Slot,
    TakeUp,
)
from taskd.store.submitting import submit
from taskd.store.transaction import Transaction
from taskd.store.values import Scheduled

FORGET = 100
"""Facts of old slots that go with one Due."""

_KNOWN = "select name, timing, definition, dropped from schedules"
_NEW = "insert into schedules (name, definition, timing, mark) values (?, ?, ?, ?)"
_CHANGED = (
    "update schedules set definition = ?, timing = ?, dropped = null,"
    " mark = iif(timing = ?, mark, max(mark, ?)), pending = iif(timing = ?, pending, null)"
    " where name = ?"
)
_DROP = "update schedules set dropped = ?, pending = null where name = ?"
_FORGET = "delete from schedules where dropped < ?"
_ROW = "select mark, paused, dropped, pending from schedules where name = ?"
_MARK = "update schedules set mark = ?, catch_up = null where name = ?"
_RAN = (
    "update schedules set last_slot = coalesce(?, last_slot), last_task = ?, overlaps = 0"
    " where name = ?"
)
_SKIPPED = "update schedules set overlaps = overlaps + 1 where name = ?"
_PENDING = "update schedules set pending = ? where name = ?"
_FACT = "select task from slots where schedule = ? and slot = ?"
_PUT = (
    "insert or replace into slots (schedule, slot, at, task, reason, through, slots)"
    " values (?, ?, ?, ?, ?, ?, ?)"
)
_OLD = (
    "delete from slots where schedule = ? and slot in"
    " (select slot from slots where schedule = ? and slot < ? order by slot limit ?)"
)
_ALIVE = (
    "select s.task, t.state, t.attempt from schedule_tasks s left join tasks t on t.id = s.task"
    " where s.schedule = ? order by s.task"
)
_OVER = "delete from schedule_tasks where schedule = ? and task = ?"
_ADD = "insert or ignore into schedule_tasks (schedule, task) values (?, ?)"
_OF = "update tasks set schedule = ?, slot = ? where id = ?"
_PAUSE = "update schedules set paused = ?, by = ? where name = ?"
_RESUME = (
    "update schedules set paused = null, by = null, catch_up = ?, mark = iif(?, mark, max(mark, ?))"
    " where name = ?"
)
_ALL = (
    "select s.name, s.timing, s.definition, s.mark, s.paused, s.by, s.dropped, s.pending,"
    " s.catch_up, s.overlaps, s.last_slot, s.last_task, t.state"
    " from schedules s left join tasks t on t.id = s.last_task order by s.name"
)
_LAST_SKIPPED = "select slot, reason from slots where schedule = ? order by slot desc limit 1"

_LIVE = frozenset({State.QUEUED.value, State.SCHEDULED.value, State.RUNNING.value})
_ENDED = frozenset(state.value for state in ENDED)


def take_up(tx: Transaction, order: TakeUp) -> Applied:
    now = tx.clock()
    tx.run(_FORGET, now - DROPPED)
    known = {name: rest for name, *rest in tx.fetch(_KNOWN)}
    changes = []
    for name, timing, kept in order.schedules:
        if name not in known:
            tx.run(_NEW, name, kept, timing, now)
            changes.append((name, "new"))
            continue
        before, definition, dropped = known.pop(name)
        if dropped is not None or (before, definition) != (timing, kept):
            tx.run(_CHANGED, kept, timing, timing, now, timing, name)
            changes.append((name, "changed" if dropped is None else "back"))
    for name, (_, _, dropped) in known.items():
        if dropped is None:
            tx.run(_DROP, now, name)
            changes.append((name, "dropped"))
    return Applied(tuple(changes), None)


def due(tx: Transaction, order: Due) -> Applied:
    name = order.schedule
    pausing.expire(tx.run, tx.clock())
    found = tx.run(_ROW, name).fetchone()
    if found is None or found[:3] != (order.was, None, None) or pausing.in_force(tx.fetch).is_all:
        return Applied(None, None)
    for skip in order.skips:
        if tx.run(_FACT, name, skip.first).fetchone() is None:
            tx.run(_PUT, name, skip.first, order.at, None, skip.reason, skip.last, skip.slots)
    tasks = []
    for run in order.runs:
        fact = tx.run(_FACT, name, run.slot).fetchone()
        if fact is not None and (fact[0] is not None or found[3] != run.slot):
            continue
        task = _run(tx, order, run)
        if task is not None:
            tasks.append(task)
    tx.run(_MARK, order.mark, name)
    tx.run(_OLD, name, name, order.keep, FORGET)
    return Applied(tasks, None)


def _run(tx: Transaction, order: Due, run: Slot) -> int | None:
    """The task of that slot; None: it is pending, or skipped."""
    name = order.schedule
    pending = tx.run(_ROW, name).fetchone()[3]
    alive = _alive(tx, name)
    if order.overlap != "run" and alive:
        _overlaps(tx, order, run.slot, pending, alive)
        return None
    try:
        task = int(submit(tx, run.task).result.task)
    except Refused as refusal:
        tx.run(_PUT, name, run.slot, order.at, None, str(refusal), run.slot, 1)
        tx.run(_SKIPPED, name)
        return None
    finally:
        if pending == run.slot:
            tx.run(_PENDING, None, name)
    _began(tx, name, task, run.slot)
    tx.run(_PUT, name, run.slot, order.at, task, None, None, None)
    return task


def _overlaps(
    tx: Transaction, order: Due, slot: float, pending: float | None, alive: list[_Alive]
) -> None:
    name, first = order.schedule, alive[0]
    waiting = [each.task for each in alive if each.is_fresh]
    if order.overlap == "queue" and pending == slot:
        return
    if order.overlap == "queue" and pending is None and not waiting:
        tx.run(_PENDING, slot, name)
        tx.run(_PUT, name, slot, order.at, None, f"waits for task {first.task}", slot, 1)
        return
    why = f"task {first.task} {'waits' if first.is_fresh else 'runs'} still"
    if order.overlap == "queue":
        other = f"task {waiting[0]}" if waiting else "the slot before"
        why = f"{other} waits still, and runs for this slot too"
    tx.run(_PUT, name, slot, order.at, None, why, slot, 1)
    tx.run(_SKIPPED, name)


class _Alive(Record):
    """A task of a schedule that waits or runs; ``is_fresh``: it has not begun."""

    task: int
    is_fresh: bool


def _alive(tx: Transaction, name: str) -> list[_Alive]:
    """Those of a schedule, oldest first; those that are over are forgotten."""
    found = []
    for task, state, attempt in tx.fetch(_ALIVE, name):
        if state is None or state in _ENDED:
            tx.run(_OVER, name, task)
        elif state in _LIVE:
            found.append(_Alive(task, not attempt))
    return found


def _began(tx: Transaction, name: str, task: int, slot: float | None) -> None:
    tx.run(_ADD, name, task)
    tx.run(_OF, name, slot, task)
    tx.run(_RAN, slot, task, name)


def run_now(tx: Transaction, order: RunNow) -> Applied:
    _known(tx, order.schedule)
    if not order.forced and (alive := _alive(tx, order.schedule)) and not _sent(tx, order.task):
        raise Refused(
            f"task {alive[0].task} of schedule '{order.schedule}' "
            f"{'waits' if alive[0].is_fresh else 'runs'} still; --force runs another one beside it"
        )
    applied = submit(tx, order.task)
    assert isinstance(applied.result, Submitted), "a refusal is raised"
    if applied.result.created:
        _began(tx, order.schedule, applied.result.task, None)
    return applied


def _sent(tx: Transaction, new: Submit) -> bool:
    """Whether that submission has come before."""
    found = tx.fetch("select 1 from submissions where submission = ?", new.submission)
    return bool(found)


def pause(tx: Transaction, order: PauseSchedule) -> Applied:
    was = _known(tx, order.schedule)
    if was is None:
        tx.run(_PAUSE, order.at, order.by, order.schedule)
    return Applied(was is None, None)


def resume(tx: Transaction, order: ResumeSchedule) -> Applied:
    was = _known(tx, order.schedule)
    if was is not None:
        keeps = order.catch_up is not None
        tx.run(_RESUME, order.catch_up, keeps, tx.clock(), order.schedule)
    return Applied(was is not None, None)


def _known(tx: Transaction, name: str) -> float | None:
    """Since when it is paused. Raises Refused."""
    found = tx.run(_ROW, name).fetchone()
    if found is None or found[2] is not None:
        raise Refused(f"no schedule '{name}'; see `taskctl schedules`")
    paused: float | None = found[1]
    return paused


HANDLERS: dict[type, Callable[[Transaction, Any], Applied]] = {
    TakeUp: take_up,
    Due: due,
    RunNow: run_now,
    PauseSchedule: pause,
    ResumeSchedule: resume,
}


def every(fetch: Fetch) -> list[Scheduled]:
    found = []
    for name, *rest, state in fetch(_ALL):
        alive = [task for task, is_, _ in fetch(_ALIVE, name) if is_ in _LIVE]
        last = fetch(_LAST_SKIPPED, name)
        slot, why = last[0] if last and last[0][1] is not None else (None, None)
        found.append(
            Scheduled._make(
                (name, *rest, None if state is None else State(state), tuple(alive), slot, why)
            )
        )
    return found

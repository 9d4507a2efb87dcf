"""What each operation of ``api`` writes, but for submits (``submitting``).

Runs in the writer thread (see ``transaction``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import islice
from typing import Any

import cbor2

from taskd.model.table import after
from taskd.model.task import CHANGES, ENDED, Change, State
from taskd.store import (
    attempts,
    concurrency,
    ends,
    expiry,
    keys,
    named,
    ordering,
    pausing,
    picking,
    purging,
    rows,
    scheduling,
    schema,
    sql,
    steering,
    turns,
)
from taskd.store.api import (
    Alter,
    Answer,
    Applied,
    Cancel,
    CancelExpired,
    Ended,
    Forget,
    GoOn,
    HoldKind,
    NoteSilence,
    NoteTimeout,
    Offer,
    Pause,
    Prepare,
    Purge,
    Recheck,
    Resume,
    Retry,
    Settle,
    Shift,
    Submit,
    SubmitAll,
    Take,
    Wake,
)
from taskd.store.concurrency_api import SetConcurrency
from taskd.store.limit_api import Block, Release, TakeUpLimits
from taskd.store.limiting import Admission, Begun
from taskd.store.queries import Candidate
from taskd.store.row_checks import ENDS, heeding_the_wish
from taskd.store.submitting import submit, submit_all
from taskd.store.transaction import Transaction
from taskd.store.values import Taken


def take(tx: Transaction, take: Take) -> Applied:
    picked, room = [], take.room
    for task, offer, begun in _pick(tx, take):
        ready, group = _ready(tx, task)
        picked.append((ready, group, offer, begun))
        room -= len(ready.args) + len(ready.saved or b"")
        if room <= 0:
            break
    return Applied([_claim(tx, *each, take.at) for each in picked], None)


def _pick(tx: Transaction, take: Take) -> list[tuple[int, Offer, Begun | None]]:
    """A ready task for each worker, as far as there are any."""
    free: dict[int, list[Offer]] = {}
    for offer in reversed(take.offers):
        free.setdefault(offer.runner, []).append(offer)
    wanted = Counter(offer.runner for offer in take.offers)
    where, count = (tx.fetch, take.queue), len(take.offers)
    paused, budget = pausing.in_force(tx.fetch), tx.limits.budget()
    if budget is not None:
        paused = budget.closed(paused)
    routes, alone = pausing.left(tx.fetch, paused, take.queue, take.routes, take.alone)
    are_some_late = expiry.are_some_late(tx.fetch)
    found = [] if are_some_late else picking.head(*where, routes, alone, count)
    admission = None if budget is None else Admission(budget, take.queue)
    if admission is not None:
        found = list(admission.those(found))
    if Counter(candidate.runner for candidate in found) != wanted:
        kinds = picking.kinds(*where)
        routes = {kind: routes[kind] for _, kind in kinds if routes.get(kind) in wanted}
        again = tx.limits.budget()
        admission = None if again is None else Admission(again, take.queue)

        def is_wanted(each: Candidate) -> bool:
            is_free = bool(free.get(each.runner))
            return is_free and (admission is None or admission.is_open(each.task, each.kind.name))

        ready = picking.in_order(*where, routes, alone, count, is_wanted)
        if are_some_late:
            ready = expiry.in_time(tx.fetch, ready)
        if admission is not None:
            ready = admission.those(ready)
        # The worker leaves before the next one is looked for.
        pairs = [(each.task, free[each.runner].pop()) for each in islice(ready, count)]
    else:
        pairs = [(each.task, free[each.runner].pop()) for each in found]
    begun = {} if admission is None else admission.begun
    return [(*pair, begun.get(pair[0])) for pair in pairs]


def taken(tx: Transaction, task: int) -> Taken:
    """A task as the store has it."""
    return _ready(tx, task)[0]


def _ready(tx: Transaction, task: int) -> tuple[Taken, int]:
    """The same, and its group."""
    *row, args, saved, group = tx.run(sql.TAKEN, task).fetchone()
    return Taken(rows.row_of(row), args, saved), group


def _claim(
    tx: Transaction, ready: Taken, group: int, offer: Offer, begun: Begun | None, at: float
) -> Taken:
    row = ready.row
    if begun is not None:
        tx.limits.began(*begun)
    attempt, revision = row.attempt + 1, offer.revision
    state = after(CHANGES, row.state, Change.CLAIM)
    tx.run(sql.NEW_EVENT, row.id, at, state.value, attempt, revision, None)
    tx.run(sql.CLAIM, state.value, attempt, offer.worker, revision, at, row.id)
    tx.tally.count(row.queue, row.state, -1)
    tx.tally.count(row.queue, state, 1)
    tx.tally.wait(group, -1)
    return ready._replace(
        row=row._replace(
            state=state,
            attempt=attempt,
            worker=offer.worker,
            revision=revision,
            reason=None,
            started=at if row.started is None else row.started,
        )
    )


def settle(tx: Transaction, end: Settle) -> Applied:
    task = tx.look(end.task)
    if task is None or task.attempt != end.attempt:
        return Applied(Answer.SUPERSEDED, None)
    if task.state is not State.RUNNING:
        return Applied(Answer.ALREADY, None)
    end = heeding_the_wish(task, end)
    attempts.keep(tx.run, task, end)
    version = tx.keep(task, end)
    group = task.group
    if version != task.saved_version:
        waits_as = task.version if version is None else version
        group = tx.tally.group(task.name, waits_as, tx.tally.shape(group))
    state = tx.change(task, ENDS[end.state], end.at, end.reason, group)
    run_at = None if end.delay is None else tx.clock() + end.delay
    turn = turns.next_at(tx.connection, task.place) if state is State.QUEUED else None
    tx.run(
        sql.SETTLE,
        *(state.value, run_at, end.at if state in ENDED else None, end.reason),
        *(_packed(end.error), _packed(end.progress), *end.budgets, version, group, turn),
        end.used,
        *(end.moves is None, end.moves, task.id),
    )
    if state is State.QUEUED:
        tx.limits.queued(task.id)
    if end.result is not None:
        tx.run("insert into results (task, value) values (?, ?)", task.id, end.result)
    return Applied(Answer.RECORDED, task.id, Ended(end.state, end.reason))


def note_timeout(tx: Transaction, told: NoteTimeout) -> Applied:
    is_there = schema.is_id(told.task)
    return Applied(is_there and bool(tx.run(sql.TIMED_OUT, *told).rowcount), None)


def note_silence(tx: Transaction, told: NoteSilence) -> Applied:
    task = tx.look(told.task)
    if task is None or (task.state, task.attempt) != (State.RUNNING, told.attempt):
        return Applied(False, None)
    if told.why is None:
        tx.run(sql.NOT_SILENT, task.id)
        return Applied(False, None)
    if not tx.run(sql.SILENT, task.id).rowcount:
        return Applied(False, None)
    values = (task.state.value, task.attempt, task.revision, told.why)
    tx.run(sql.NEW_EVENT, task.id, told.at, *values)
    return Applied(True, task.id)


def hold_kind(tx: Transaction, hold: HoldKind) -> Applied:
    ready = picking.in_order(tx.fetch, hold.queue, {hold.kind: 0}, {}, hold.limit)
    tasks = [candidate.task for candidate in islice(ready, hold.limit)]
    for number in tasks:
        state = tx.change(tx.found(number), Change.HOLD, hold.at, hold.reason)
        tx.run(sql.HOLD, state.value, hold.reason, number)
    return Applied(tasks, None)


def wake(tx: Transaction, wake: Wake) -> Applied:
    now = tx.clock()
    pausing.expire(tx.run, now)
    concurrency.expire(tx, now)
    tx.limits.wake()
    due = [number for (number,) in tx.run(sql.DUE, now, wake.limit).fetchall()]
    for number in due:
        task = tx.found(number)
        state = tx.change(task, Change.DUE, now, None)
        tx.run(sql.WAKE, state.value, turns.next_at(tx.connection, task.place), number)
        tx.limits.queued(number)
    return Applied(due, None)


def shift(tx: Transaction, shift: Shift) -> Applied:
    pausing.shift(tx.run, shift.seconds)
    concurrency.shift(tx, shift.seconds)
    tx.limits.shift(shift.seconds)
    named.shift(tx, shift.seconds)
    tx.run(sql.SHIFT_EXPIRY, shift.seconds)
    tx.run(sql.SHIFT_KEYS, shift.seconds)
    tx.run(ordering.SHIFT, shift.seconds)
    return Applied(tx.run(sql.SHIFT, shift.seconds).rowcount, None)


def prepare(tx: Transaction, operation: Prepare) -> Applied:
    left = purging.prepare(tx.connection, tx.clock(), operation)
    return Applied(left, None, also=tuple(keys.left_behind(tx)))


def _packed(value: dict[str, Any] | None) -> bytes | None:
    return None if value is None else cbor2.dumps(value)


HANDLERS: dict[type, Callable[[Transaction, Any], Applied]] = {
    Submit: submit,
    SubmitAll: submit_all,
    Take: take,
    Settle: settle,
    Cancel: steering.cancel,
    Retry: steering.retry,
    Alter: steering.alter,
    HoldKind: hold_kind,
    Wake: wake,
    NoteTimeout: note_timeout,
    NoteSilence: note_silence,
    CancelExpired: expiry.cancel_expired,
    GoOn: lambda tx, each: Applied(ends.pass_on(tx, each.limit), None),
    Recheck: lambda tx, each: Applied(ordering.recheck(tx, each), None),
    Shift: shift,
    Pause: lambda tx, each: Applied(pausing.pause(tx.run, each, tx.clock()), None),
    Resume: lambda tx, each: Applied(pausing.resume(tx.run, each.scope, tx.clock()), None),
    SetConcurrency: lambda tx, each: Applied(concurrency.put(tx, each), None),
    Prepare: prepare,
    Purge: lambda tx, each: Applied(purging.purge(tx.connection, tx.tally, tx.clock(), each), None),
    Forget: lambda tx, each: Applied(purging.forget(tx.connection, tx.clock(), each), None),
    TakeUpLimits: lambda tx, each: Applied(tx.limits.take_up(each), None),
    Release: lambda tx, each: Applied(tx.limits.release(each), None),
    Block: lambda tx, each: Applied(tx.limits.block(each), None),
    **scheduling.HANDLERS,
}

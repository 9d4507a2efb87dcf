"""The writing side of the SQLite store.

Runs in the writer thread, which alone uses it. One ``apply`` is one transaction with one sync.

Invariants:
* A state is written only by ``model.task.CHANGES``, together with its numbered event and the
  counters (``_change``), in the same transaction.
* An operation checks everything before its first write, so that a refusal leaves nothing behind;
  only SubmitAll, which can be refused in its middle, needs a savepoint.
* Nothing is written for an ended attempt, a stale attempt or an unknown task.
* A commit that failed and may yet come to light, if this process dies now
  (``connection.is_unknown``), is unknown until a commit succeeds: the next one is written over it.
  In between ``outcome`` is right on this connection: the batch is not committed, and to apply it
  again under its number is right whether it comes to light or not. No other error in between says
  that nothing happened: another try may end before it has written over all of the first.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import cbor2

from taskd import errors
from taskd.model.table import after
from taskd.model.task import CHANGES, ENDED, Change, State
from taskd.store import connection, outcomes, picking, purging, rows, schema, sql, turns
from taskd.store.api import (
    Answer,
    Applied,
    Cancel,
    Cancelled,
    Ended,
    HoldKind,
    Offer,
    Operation,
    Retry,
    Settle,
    Shift,
    Submit,
    SubmitAll,
    Submitted,
    Take,
    Wake,
)
from taskd.store.row_checks import (
    ENDS,
    Task,
    check_horizon,
    check_retry,
    check_room,
    check_same,
    check_share,
    heeding_the_wish,
)
from taskd.store.tally import Tally
from taskd.store.turns import Place
from taskd.store.values import Taken


class SqliteStore:
    """``api.Store`` over the file at ``path``, made if missing (mode 0600). Raises StoreError.
    ``clock``: Unix seconds."""

    __slots__ = ("_clock", "_connection", "_handlers", "_is_unknown", "_last", "_path", "_tally")

    def __init__(self, path: str, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._connection = connection.open_writing(path)
        self._tally = Tally(self._connection)
        self._is_unknown = False
        self._last = self.last()
        self._handlers: dict[type, Callable[[Any], Applied]] = {
            Submit: self._submit,
            SubmitAll: self._submit_all,
            Take: self._take,
            Settle: self._settle,
            Cancel: self._cancel,
            Retry: self._retry,
            HoldKind: self._hold_kind,
            Wake: self._wake,
            Shift: lambda shift: Applied(self._run(sql.SHIFT, shift.seconds).rowcount, None),
            **purging.handlers(self._connection, lambda: self._tally, clock),
        }

    def apply(self, number: int, operations: Sequence[Operation]) -> list[Applied]:
        if number != self._last + 1:
            raise ValueError(f"batch {number} cannot follow batch {self._last}")
        applied = []
        is_committing = False
        try:
            self._run("begin immediate")
            for operation in operations:
                try:
                    applied.append(self._handlers[type(operation)](operation))
                except errors.Refused as refusal:
                    applied.append(Applied(refusal, None))
            self._tally.write(number, outcomes.packed(operations, applied))
            is_committing = True
            self._run("commit")
        except BaseException as error:
            self._tally = Tally(self._connection)
            if self._connection.in_transaction:  # else SQLite has rolled it back by itself
                self._run("rollback")
            if isinstance(error, sqlite3.Error):
                failure = connection.failure(error, self._path)
                self._is_unknown |= is_committing and connection.is_unknown(error)
                if self._is_unknown:
                    raise errors.StoreUnknown(str(failure)) from error
                raise failure from error
            raise
        self._last, self._is_unknown = number, False
        return applied

    def last(self) -> int:
        found = self._ask(sql.LAST)
        return 0 if found is None or found[0] is None else int(found[0])

    def outcome(self, number: int) -> list[Applied] | None:
        found = self._ask(sql.OUTCOME, number)
        if found is None:
            return None
        return outcomes.unpacked(found[0], lambda task: self._ready(task)[0])

    def checkpoint(self) -> None:
        try:
            self._run("pragma wal_checkpoint(truncate)").fetchall()
        except sqlite3.Error as error:
            raise connection.failure(error, self._path) from error

    def close(self) -> None:
        self._connection.close()

    # One operation each; what they share stands below.

    def _submit(self, new: Submit) -> Applied:
        try:
            known = self._known(new)
            if known is not None:
                return Applied(Submitted(known, False), None)
            if new.share is not None:
                check_share(new.owner, self._tally.owned(new.owner), len(new.args), new.share)
            task = self._insert(new)
        except (OverflowError, UnicodeEncodeError) as error:  # at worst, an empty group is written
            raise errors.Refused(f"the task cannot be stored: {error}") from None
        return Applied(Submitted(task, True), task)

    def _submit_all(self, all_of: SubmitAll) -> Applied:
        before = self._tally.copy()
        self._run("savepoint submits")
        try:
            done = [self._submit(new).result for new in all_of.tasks]
        except errors.Refused:
            self._run("rollback to submits")
            self._run("release submits")
            self._tally = before
            raise
        self._run("release submits")
        return Applied(done, None)

    def _take(self, take: Take) -> Applied:
        picked, room = [], take.room
        for task, offer in self._pick(take):
            ready, group = self._ready(task)
            picked.append((ready, group, offer))
            room -= len(ready.args) + len(ready.saved or b"")
            if room <= 0:
                break
        return Applied([self._claim(*each, take.at) for each in picked], None)

    def _pick(self, take: Take) -> list[tuple[int, Offer]]:
        """A ready task for each worker, as far as there are any."""
        free: dict[int, list[Offer]] = {}
        for offer in reversed(take.offers):
            free.setdefault(offer.runner, []).append(offer)
        wanted = Counter(offer.runner for offer in take.offers)
        where, count = (self._fetch, take.queue), len(take.offers)
        found = picking.head(*where, take.routes, take.alone, count)
        if Counter(candidate.runner for candidate in found) != wanted:
            kinds = picking.kinds(*where)
            routes = {kind: take.routes[kind] for kind in kinds if take.routes.get(kind) in wanted}
            ready = picking.in_order(*where, routes, take.alone, count, lambda r: bool(free.get(r)))
            return [(each.task, free[each.runner].pop()) for each in islice(ready, count)]
        return [(each.task, free[each.runner].pop()) for each in found]

    def _ready(self, task: int) -> tuple[Taken, int]:
        """A task as the store has it, and its group."""
        *row, args, saved, group = self._run(sql.TAKEN, task).fetchone()
        return Taken(rows.row_of(row), args, saved), group

    def _claim(self, ready: Taken, group: int, offer: Offer, at: float) -> Taken:
        row = ready.row
        attempt, revision = row.attempt + 1, offer.revision
        state = after(CHANGES, row.state, Change.CLAIM)
        self._run(sql.NEW_EVENT, row.id, at, state.value, attempt, revision, None)
        self._run(sql.CLAIM, state.value, attempt, offer.worker, revision, at, row.id)
        self._tally.count(row.queue, row.state, -1)
        self._tally.count(row.queue, state, 1)
        self._tally.wait(group, -1)
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

    def _settle(self, end: Settle) -> Applied:
        task = self._look(end.task)
        if task is None or task.attempt != end.attempt:
            return Applied(Answer.SUPERSEDED, None)
        if task.state is not State.RUNNING:
            return Applied(Answer.ALREADY, None)
        end = heeding_the_wish(task, end)
        version = self._keep(task, end)
        group = task.group
        if version != task.saved_version:
            waits_as = task.version if version is None else version
            group = self._tally.group(task.name, waits_as, self._tally.shape(group))
        state = self._change(task, ENDS[end.state], end.at, end.reason, group)
        run_at = None if end.delay is None else self._clock() + end.delay
        turn = turns.next_at(self._connection, task.place) if state is State.QUEUED else None
        self._run(
            sql.SETTLE,
            *(state.value, run_at, end.at if state in ENDED else None, end.reason),
            *(_packed(end.error), _packed(end.progress), *end.budgets, version, group, turn),
            task.id,
        )
        if end.result is not None:
            self._run("insert into results (task, value) values (?, ?)", task.id, end.result)
        return Applied(Answer.RECORDED, task.id, Ended(end.state, end.reason))

    def _cancel(self, cancel: Cancel) -> Applied:
        task = self._theirs(cancel.task, cancel.owner)
        if task.state in ENDED:
            return Applied(Cancelled(task.state, task.state), None)
        if task.state is State.RUNNING:
            self._run("update tasks set cancel_wished = 1 where id = ?", task.id)
            return Applied(Cancelled(task.state, task.state), None)
        state = self._change(task, Change.CANCEL, cancel.at, None)
        self._run(sql.END, state.value, cancel.at, task.id)
        return Applied(Cancelled(state, task.state), task.id)

    def _retry(self, retry: Retry) -> Applied:
        task = self._theirs(retry.task, retry.owner)
        check_retry(task, self._run(sql.KEY, task.owner, task.key).fetchone())
        if task.state in ENDED and retry.share is not None:
            owned = self._tally.owned(task.owner)
            check_share(task.owner, owned, self._size(task.id), retry.share)
        state = self._change(task, Change.RETRY, retry.at, None)
        self._run(sql.RETRY, state.value, turns.next_at(self._connection, task.place), task.id)
        return Applied(state, task.id)

    def _hold_kind(self, hold: HoldKind) -> Applied:
        ready = picking.in_order(self._fetch, hold.queue, {hold.kind: 0}, {}, hold.limit)
        tasks = [candidate.task for candidate in islice(ready, hold.limit)]
        for number in tasks:
            state = self._change(self._found(number), Change.HOLD, hold.at, hold.reason)
            self._run(sql.HOLD, state.value, hold.reason, number)
        return Applied(tasks, None)

    def _wake(self, wake: Wake) -> Applied:
        now = self._clock()
        due = [number for (number,) in self._run(sql.DUE, now, wake.limit).fetchall()]
        for number in due:
            task = self._found(number)
            state = self._change(task, Change.DUE, now, None)
            self._run(sql.WAKE, state.value, turns.next_at(self._connection, task.place), number)
        return Applied(due, None)

    # Submitting.

    def _known(self, new: Submit) -> int | None:
        """The task that this submission or its key already led to; None: it is new."""
        found = self._run(sql.SUBMISSION, new.submission).fetchone()
        if found is not None:
            if found[1] != new.owner:
                raise errors.Refused("this submission id is another user's; make a new random one")
            return int(found[0])
        check_horizon(new, self._clock())
        taken = None if new.key is None else self._run(sql.KEY, new.owner, new.key).fetchone()
        if taken is None:
            return None
        check_same(new, taken)
        check_room(new.share)
        self._run(sql.NEW_SUBMISSION, new.submission, taken[0])
        return int(taken[0])

    def _insert(self, new: Submit) -> int:
        is_later = new.delay is not None and new.delay > 0  # NaN is not
        run_at = self._clock() + (new.delay or 0.0) if is_later else None
        state = State.QUEUED if run_at is None else State.SCHEDULED
        place = Place(new.queue, new.owner, new.priority, begun=False)
        group = self._tally.group(new.name, new.version, new.shape)
        task = self._run(
            sql.NEW_TASK,
            *(new.owner, new.queue, state.value, new.priority, run_at),
            new.retries if new.retries_said is None else new.retries_said,
            *(group, new.name, new.version),
            *(None if new.on_deploy is None else new.on_deploy.value, new.at, new.key),
            None if run_at else turns.next_at(self._connection, place),
            new.retries_said,
        ).lastrowid
        assert task is not None  # an INSERT that did not raise has one
        self._run("insert into arguments (task, value) values (?, ?)", task, new.args)
        self._run(sql.NEW_SUBMISSION, new.submission, task)
        self._run(sql.NEW_EVENT, task, new.at, state.value, 0, None, None)
        self._tally.count(new.queue, state, 1)
        self._tally.wait(group, 1)
        self._tally.own(new.owner, 1, len(new.args))
        return task

    # Rows, groups and events.

    def _look(self, task: int) -> Task | None:
        found = self._run(sql.LOOK, task).fetchone() if schema.is_id(task) else None
        return None if found is None else Task._make((*found[:5], State(found[5]), *found[6:]))

    def _found(self, number: int) -> Task:
        """A task that this transaction has just found."""
        task = self._look(number)
        assert task is not None, "nothing else writes"
        return task

    def _theirs(self, task: int, owner: int | None) -> Task:
        found = self._look(task)
        if found is None or (owner is not None and found.owner != owner):
            raise errors.UnknownTask(f"no task {task}")
        return found

    def _change(
        self, task: Task, change: Change, at: float, reason: str | None, group: int | None = None
    ) -> State:
        """The new state; writes its event and its counters. The caller writes the row.

        The event gets ``task``'s attempt and revision; ``group``: the task's new group, if it has
        another.
        """
        state = after(CHANGES, task.state, change)
        self._run(sql.NEW_EVENT, task.id, at, state.value, task.attempt, task.revision, reason)
        self._tally.count(task.queue, task.state, -1)
        self._tally.count(task.queue, state, 1)
        if task.state in schema.WAITING_STATES:
            self._tally.wait(task.group, -1)
        if state in schema.WAITING_STATES:
            self._tally.wait(task.group if group is None else group, 1)
        if (over := state in ENDED) != (task.state in ENDED):
            size = self._size(task.id)
            self._tally.own(task.owner, -1 if over else 1, -size if over else size)
        return state

    def _size(self, task: int) -> int:
        """Bytes of its arguments."""
        return int(self._run(sql.SIZE, task).fetchone()[0])

    def _keep(self, task: Task, end: Settle) -> int | None:
        """Write or drop the saved state, as ``end`` says; the version of what is saved now, or
        None."""
        if end.saved == b"" or end.state is State.SUCCEEDED:  # nothing leaves succeeded
            if task.saved_version is not None:
                self._run("delete from saved where task = ?", task.id)
            return None
        if end.saved is None:
            return task.saved_version
        self._run(sql.KEEP, task.id, end.saved)
        return task.version if end.saved_version is None else end.saved_version

    def _fetch(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        return self._connection.execute(statement, values).fetchall()

    def _run(self, statement: str, *values: Any) -> sqlite3.Cursor:
        return self._connection.execute(statement, values)

    def _ask(self, sql: str, *values: Any) -> tuple[Any, ...] | None:
        """The first row; leaves no transaction open. Raises StoreError."""
        try:
            found: tuple[Any, ...] | None = next(iter(self._run(sql, *values).fetchall()), None)
        except sqlite3.Error as error:
            raise connection.failure(error, self._path) from error
        return found


def _packed(value: dict[str, Any] | None) -> bytes | None:
    return None if value is None else cbor2.dumps(value)

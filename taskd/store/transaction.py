"""What the operations of one transaction share: statements, rows, events and counters.

Runs in the writer thread, which alone uses it. Invariants:

* A state is written only by ``model.task.CHANGES``, together with its numbered event and the
  counters (``change``), in the same transaction.
* An operation checks everything before its first write, so that a refusal leaves nothing behind;
  only SubmitAll, which can be refused in its middle, needs a savepoint.
* Nothing is written for an ended attempt, a stale attempt or an unknown task.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

from taskd import errors
from taskd.model.table import after
from taskd.model.task import CHANGES, ENDED, Change, State
from taskd.store import schema, sql
from taskd.store.api import Settle
from taskd.store.blocking import Limiting
from taskd.store.row_checks import Task
from taskd.store.tally import Tally


class Transaction:
    """``clock``: the store's, Unix seconds. ``tally``: the counters that it changes. ``asked``: the
    tasks that run and that the operation wishes to cancel beside its own; ``ended``: those
    that are over since ``ends.told``, as they were before; ``limits``: what they let begin."""

    __slots__ = ("asked", "clock", "connection", "ended", "limits", "tally")

    def __init__(self, connection: sqlite3.Connection, clock: Callable[[], float]) -> None:
        self.connection = connection
        self.clock = clock
        self.tally = Tally(connection)
        self.ended: list[Task] = []
        self.asked: list[int] = []
        self.limits = Limiting(connection, clock)

    def forget(self) -> None:
        """It was rolled back: so are the counters."""
        self.tally = Tally(self.connection)
        self.ended.clear()
        self.asked.clear()
        self.limits.forget()

    def look(self, task: int) -> Task | None:
        found = self.run(sql.LOOK, task).fetchone() if schema.is_id(task) else None
        return None if found is None else Task._make((*found[:5], State(found[5]), *found[6:]))

    def found(self, number: int) -> Task:
        """A task that this transaction has just found."""
        task = self.look(number)
        assert task is not None, "nothing else writes"
        return task

    def theirs(self, task: int, owner: int | None) -> Task:
        found = self.look(task)
        if found is None or (owner is not None and found.owner != owner):
            raise errors.UnknownTask(f"no task {task}")
        return found

    def change(
        self, task: Task, change: Change, at: float, reason: str | None, group: int | None = None
    ) -> State:
        """The new state; writes its event and its counters. The caller writes the row.

        The event gets ``task``'s attempt and revision; ``group``: the task's new group, if it has
        another.
        """
        state = after(CHANGES, task.state, change)
        self.limits.changing(task.id, task.state)
        self.run(sql.NEW_EVENT, task.id, at, state.value, task.attempt, task.revision, reason)
        self.tally.count(task.queue, task.state, -1)
        self.tally.count(task.queue, state, 1)
        if task.state in schema.WAITING_STATES:
            self.tally.wait(task.group, -1)
        if state in schema.WAITING_STATES:
            self.tally.wait(task.group if group is None else group, 1)
        if (over := state in ENDED) != (task.state in ENDED):
            size = self.size(task.id)
            self.tally.own(task.owner, -1 if over else 1, -size if over else size)
            if over:
                self.ended.append(task)
                if task.waits_for:
                    self.run(sql.WAITS_NO_MORE, task.id)
        return state

    def size(self, task: int) -> int:
        """Bytes of its arguments."""
        return int(self.run(sql.SIZE, task).fetchone()[0])

    def keep(self, task: Task, end: Settle) -> int | None:
        """Write or drop the saved state, as ``end`` says; the version of what is saved now, or
        None."""
        if end.saved == b"" or end.state is State.SUCCEEDED:  # nothing leaves succeeded
            if task.saved_version is not None:
                self.run("delete from saved where task = ?", task.id)
            return None
        if end.saved is None:
            return task.saved_version
        self.run(sql.KEEP, task.id, end.saved)
        return task.version if end.saved_version is None else end.saved_version

    def fetch(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        return self.connection.execute(statement, values).fetchall()

    def run(self, statement: str, *values: Any) -> sqlite3.Cursor:
        return self.connection.execute(statement, values)

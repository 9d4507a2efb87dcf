"""The reading side of the SQLite store: answers queries within the call (see ``answers``).

Runs in the master's loop, on a read-only connection of its own. Every statement is fetched to its
end at once, so that no read transaction stays open: the next call sees the latest commit, and the
write-ahead log can be checkpointed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from taskd import errors
from taskd.model.task import State
from taskd.store import connection, schema
from taskd.store.answers import ANSWERS, COLUMNS as _COLUMNS, TASK as _TASK, row_of as _row
from taskd.store.api import Event, Filter, Group, Row
from taskd.store.queries import A, Query

_READY = (
    f"select {_COLUMNS} from tasks indexed by tasks_turn"
    f" where queue = ? and {schema.READY} order by priority desc, turn, id limit ?"
)
_RUNNING = (
    f"select {_COLUMNS} from tasks indexed by tasks_state"
    " where state = 'running' and id > ? order by id limit ?"
)
_NEXT_DUE = (
    "select run_at from tasks indexed by tasks_scheduled"
    f" where {schema.SCHEDULED} order by run_at limit 1"
)
_EVENTS = (
    "select number, task, at, state, attempt, revision, reason"
    " from events indexed by events_task where task = ? and number > ? order by number limit ?"
)
_EVENTS_OF = (
    "select number, task, at, state, attempt, revision, reason"
    " from events indexed by events_task"
    " where task in (select value from json_each(?)) and number > ? order by number limit ?"
)
_RAN = (
    "select task, sum(max(0, coalesce(until, ?) - at)) from ("
    " select task, state, at, lead(at) over (partition by task order by number) as until"
    " from events indexed by events_task where task in (select value from json_each(?)))"
    " where state = 'running' group by task"
)
_COUNTS = "select queue, state, tasks from counts where tasks <> 0"
_TOTALS = "select state, sum(tasks) from counts group by state"
_QUEUE = "select state, tasks from counts where queue = ? and tasks <> 0"
_QUEUED = (
    "select queue from counts indexed by counts_not_empty"
    f" where {schema.NOT_EMPTY} and state = 'queued' and queue > ? order by queue limit ?"
)
_BUSY = (
    "select distinct queue from counts indexed by counts_not_empty"
    f" where {schema.NOT_EMPTY} and state in ('queued', 'running') limit ?"
)
_GROUPS = (
    "select g.name, g.version, g.shape, g.waiting,"
    " (select t.id from tasks t indexed by tasks_waiting"
    f" where t.group_id = g.id and t.{schema.WAITING} order by t.id limit 1)"
    " from groups_waiting g indexed by groups_not_empty where g.waiting > 0 order by g.id"
)
_WAITING = (
    "select name, version, sum(waiting) from groups_waiting indexed by groups_not_empty"
    " where waiting > 0 group by name, version"
)


class SqliteReader:
    """``api.Reader`` over the file at ``path``. Raises StoreError if that is not a store yet."""

    __slots__ = ("_connection", "_path", "damage")

    def __init__(self, path: str) -> None:
        self._path = path
        self.damage: errors.StoreDamaged | None = None
        self._connection = connection.open_reading(path)

    def ask(self, query: Query[A], done: Callable[[A | errors.StoreError], None]) -> None:
        """See ``queries.Reader``; answers within the call."""
        answer: A | errors.StoreError
        try:
            answer = ANSWERS[type(query)](self._fetch, query)
        except errors.StoreError as error:
            answer = error
        done(answer)

    def task(self, task: int) -> Row | None:
        found = self._fetch(_TASK, task) if schema.is_id(task) else []
        return _row(found[0]) if found else None

    def args(self, task: int) -> bytes:
        found = self._value("arguments", task)
        if found is None:
            raise errors.UnknownTask(f"no task {task}")
        return found

    def saved(self, task: int) -> bytes | None:
        return self._value("saved", task)

    def result(self, task: int) -> bytes | None:
        return self._value("results", task)

    def tasks(self, filter: Filter) -> list[Row]:
        named: dict[str, Any] = {"name": filter.name, "queue": filter.queue, "owner": filter.owner}
        wanted = {column: value for column, value in named.items() if value is not None}
        if filter.state is not None:
            state: dict[str, Any] = {"state": filter.state.value}
            # The first column's index is used, and must narrow most: queued and succeeded tasks
            # may be a million, tasks in another state are few.
            is_broad = filter.state in (State.QUEUED, State.SUCCEEDED)
            wanted = wanted | state if is_broad else state | wanted
        conditions = [f"{column} = ?" for column in wanted]
        values: list[Any] = list(wanted.values())
        if filter.before is not None:
            conditions.append("id < ?")
            values.append(min(filter.before, schema.LARGEST))
        source = f"tasks indexed by tasks_{next(iter(wanted))}" if wanted else "tasks"
        where = f" where {' and '.join(conditions)}" if conditions else ""
        sql = f"select {_COLUMNS} from {source}{where} order by id desc limit ?"
        return [_row(each) for each in self._fetch(sql, *values, filter.limit)]

    def events(self, tasks: Sequence[int], after: int, limit: int) -> list[Event]:
        known = [task for task in tasks if schema.is_id(task)]
        after = min(after, schema.LARGEST)
        if len(known) == 1:
            found = self._fetch(_EVENTS, known[0], after, limit)
        else:
            found = self._fetch(_EVENTS_OF, str(known), after, limit)  # a list of numbers is JSON
        return [Event._make((*each[:3], State(each[3]), *each[4:])) for each in found]

    def ran(self, tasks: Sequence[int], now: float) -> dict[int, float]:
        return dict(self._fetch(_RAN, now, str([task for task in tasks if schema.is_id(task)])))

    def ready(self, queue: str, limit: int) -> list[Row]:
        return [_row(each) for each in self._fetch(_READY, queue, limit)]

    def running(self, after: int, limit: int) -> list[Row]:
        return [_row(each) for each in self._fetch(_RUNNING, after, limit)]

    def counts(self) -> dict[tuple[str, State], int]:
        return {(queue, State(state)): n for queue, state, n in self._fetch(_COUNTS)}

    def states(self, queue: str | None = None) -> dict[State, int]:
        found = self._fetch(_TOTALS) if queue is None else self._fetch(_QUEUE, queue)
        return {State(state): n for state, n in found if n}

    def queued(self, after: str, limit: int) -> list[str]:
        return [queue for (queue,) in self._fetch(_QUEUED, after, limit)]

    def busy(self, limit: int) -> list[str]:
        return [queue for (queue,) in self._fetch(_BUSY, limit)]

    def groups(self) -> list[Group]:
        return [Group(*each) for each in self._fetch(_GROUPS)]

    def waiting(self) -> dict[tuple[str, int], int]:
        return {(name, version): n for name, version, n in self._fetch(_WAITING)}

    def next_due(self) -> float | None:
        found = self._fetch(_NEXT_DUE)
        return found[0][0] if found else None

    def close(self) -> None:
        self._connection.close()

    def _value(self, table: str, task: int) -> bytes | None:
        sql = f"select value from {table} where task = ?"
        found = self._fetch(sql, task) if schema.is_id(task) else []
        return found[0][0] if found else None

    def _fetch(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            failure = connection.failure(error, self._path)
            if isinstance(failure, errors.StoreDamaged):
                self.damage = failure
            raise failure from error

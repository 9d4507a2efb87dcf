"""The reading side of the SQLite store: answers queries within the call (see ``answers``).

Runs in the master's loop, on a read-only connection of its own. Every statement is fetched to its
end at once, so that no read transaction stays open: the next call sees the latest commit, and the
write-ahead log can be checkpointed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

from taskd import errors
from taskd.store import connection, schema
from taskd.store.answers import ANSWERS, COLUMNS as _COLUMNS, TASK as _TASK, row_of as _row
from taskd.store.api import Row
from taskd.store.queries import A, Query

_READY = (
    f"select {_COLUMNS} from tasks indexed by tasks_turn"
    f" where queue = ? and {schema.READY} order by priority desc, turn, id limit ?"
)
_NEXT_DUE = (
    "select run_at from tasks indexed by tasks_scheduled"
    f" where {schema.SCHEDULED} order by run_at limit 1"
)
_QUEUED = (
    "select queue from counts indexed by counts_not_empty"
    f" where {schema.NOT_EMPTY} and state = 'queued' and queue > ? order by queue limit ?"
)


class SqliteReader:
    """``queries.Reader`` over the file at ``path``. Raises StoreError if that is no store yet."""

    __slots__ = ("_connection", "_path", "damage")

    def __init__(self, path: str) -> None:
        self._path = path
        self.damage: errors.StoreDamaged | None = None
        self._connection = connection.open_reading(path)

    def ask(self, query: Query[A], done: Callable[[A | errors.StoreError], None]) -> None:
        """Answers within the call."""
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

    def ready(self, queue: str, limit: int) -> list[Row]:
        return [_row(each) for each in self._fetch(_READY, queue, limit)]

    def queued(self, after: str, limit: int) -> list[str]:
        return [queue for (queue,) in self._fetch(_QUEUED, after, limit)]

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

"""The reading side of the SQLite store: answers queries within the call (see ``answers``).

Runs in the master's loop, on a read-only connection of its own. Each answer is one read
transaction, so that it tells of one moment, and none stays open: the next one sees the latest
commit, and the write-ahead log can be checkpointed. (One transaction also costs less than one a
statement.)
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import Any

from taskd import errors
from taskd.store import connection, event_answers, schema
from taskd.store.answers import ANSWERS
from taskd.store.queries import A, Query


class SqliteReader:
    """``queries.Reader`` over the file at ``path``. Raises StoreError if that is no store yet.
    ``clock``: Unix seconds."""

    __slots__ = ("_connection", "_path", "damage")

    def __init__(self, path: str, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self.damage: errors.StoreDamaged | None = None
        self._connection = connection.open_reading(path)
        self._connection.create_function("store_clock", 0, clock)

    def ask(self, query: Query[A], done: Callable[[A | errors.StoreError], None]) -> None:
        """See ``queries.Reader``; answers within the call."""
        answer: A | errors.StoreError
        try:
            self._fetch("begin")
            try:
                answer = ANSWERS[type(query)](self._fetch, query)
            finally:
                if self._connection.in_transaction:  # else SQLite has ended it by itself
                    self._fetch("rollback")
        except errors.StoreError as error:
            answer = error
        done(answer)

    def is_grown(self) -> bool:
        """Whether the file has what this version adds: else only its writer makes it answer."""
        try:
            return schema.is_grown(self._connection)
        except sqlite3.Error as error:
            raise connection.failure(error, self._path) from error

    def token(self, named: int | str) -> str | None:
        """See ``queries.Reader``."""
        return event_answers.token(named)

    def close(self) -> None:
        self._connection.close()

    def _fetch(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            failure = connection.failure(error, self._path)
            if isinstance(failure, errors.StoreDamaged):
                self.damage = failure
            raise failure from error

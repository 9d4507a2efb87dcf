"""The reading side of the SQLite store: answers queries within the call (see ``answers``).

Runs in the master's loop, on a read-only connection of its own. Every statement is fetched to its
end at once, so that no read transaction stays open: the next call sees the latest commit, and the
write-ahead log can be checkpointed.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import Any

from taskd import errors
from taskd.store import connection
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
            answer = ANSWERS[type(query)](self._fetch, query)
        except errors.StoreError as error:
            answer = error
        done(answer)

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

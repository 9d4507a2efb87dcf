"""The writing side of the SQLite store.

Runs in the writer thread, which alone uses it. One ``apply`` is one transaction with one sync; what
stands in it is in ``transaction`` and ``operations``.

A commit that failed and may yet come to light, if this process dies now
(``connection.is_unknown``), is unknown until a commit succeeds: the next one is written over it. In
between ``outcome`` is right on this connection: the batch is not committed, and to apply it again
under its number is right whether it comes to light or not. No other error in between says that
nothing happened: another try may end before it has written over all of the first.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from taskd import errors
from taskd.store import connection, ends, outcomes, sql
from taskd.store.api import Applied, Operation
from taskd.store.operations import HANDLERS, taken
from taskd.store.transaction import Transaction


class SqliteStore:
    """``api.Store`` over the file at ``path``, made if missing (mode 0600). Raises StoreError.
    ``clock``: Unix seconds."""

    __slots__ = ("_connection", "_is_unknown", "_last", "_path", "_run", "_transaction")

    def __init__(
        self,
        path: str,
        clock: Callable[[], float] = time.time,
        at_work: Callable[[], None] | None = None,
    ) -> None:
        """``at_work``: called now and then within a statement that takes long."""
        self._path = path
        self._connection = connection.open_writing(path)
        self._connection.create_function("store_clock", 0, clock)
        self._transaction = Transaction(self._connection, clock)
        self._run = self._transaction.run
        self._is_unknown = False
        self._last = self.last()
        if at_work is not None:
            connection.call_at_work(self._connection, at_work)

    def apply(self, number: int, operations: Sequence[Operation]) -> list[Applied]:
        if number != self._last + 1:
            raise ValueError(f"batch {number} cannot follow batch {self._last}")
        applied = []
        is_committing = False
        try:
            self._run("begin immediate")
            for operation in operations:
                try:
                    done = HANDLERS[type(operation)](self._transaction, operation)
                    if self._transaction.ended:
                        done = done._replace(also=done.also + ends.told(self._transaction))
                    if self._transaction.asked:
                        done = done._replace(asked=tuple(self._transaction.asked))
                        self._transaction.asked.clear()
                    applied.append(done)
                except errors.Refused as refusal:
                    applied.append(Applied(refusal, None))
                self._transaction.limits.put_back()
            self._transaction.tally.write(number, outcomes.packed(operations, applied))
            is_committing = True
            self._run("commit")
        except BaseException as error:
            self._transaction.forget()
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
        return (
            None
            if found is None
            else outcomes.unpacked(found[0], partial(taken, self._transaction))
        )

    def checkpoint(self) -> None:
        with connection.told(self._path):
            self._run("pragma wal_checkpoint(truncate)").fetchall()

    def shrink(self, size: int) -> None:
        with connection.told(self._path):
            connection.shrink(self._connection, size)

    def compact(self) -> None:
        with connection.told(self._path):
            connection.compact(self._connection)

    def close(self) -> None:
        self._connection.close()

    def _ask(self, sql: str, *values: Any) -> tuple[Any, ...] | None:
        """The first row; leaves no transaction open. Raises StoreError."""
        try:
            found: tuple[Any, ...] | None = next(iter(self._run(sql, *values).fetchall()), None)
        except sqlite3.Error as error:
            raise connection.failure(error, self._path) from error
        return found

"""The counters of one transaction, and the groups that tasks are counted in.

Runs in the writer thread. Differences are gathered in memory and written once, before the commit:
a thousand submits to one queue cost one update, not a thousand.

Invariant: what is gathered here are the differences that the transaction made to ``tasks``. If a
savepoint is rolled back, the ``copy`` made at it takes over; if the transaction is, a new Tally.
"""

from __future__ import annotations

import sqlite3

from taskd.model.task import State

_GROUPS_KNOWN = 10_000  # ids of groups kept in memory

_GROUP = "select id from groups_waiting where name = ? and version = ? and shape = ?"
_NEW_GROUP = "insert into groups_waiting (name, version, shape) values (?, ?, ?)"
_SHAPE = "select shape from groups_waiting where id = ?"
_ADD_WAITING = "update groups_waiting set waiting = waiting + ? where id = ?"
_ADD_COUNT = (
    "insert into counts (queue, state, tasks) values (?, ?, ?)"
    " on conflict (queue, state) do update set tasks = tasks + excluded.tasks"
)
_FORGET_EMPTY = "delete from counts where queue = ? and state = ? and tasks = 0"


class Tally:
    """Differences by (queue, state) and by group since the transaction began."""

    __slots__ = ("_connection", "_counts", "_groups", "_waiting")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._counts: dict[tuple[str, State], int] = {}
        self._waiting: dict[int, int] = {}
        self._groups: dict[tuple[str, int, str], int] = {}

    def count(self, queue: str, state: State, change: int) -> None:
        """``change`` more tasks of that queue are in that state."""
        self._counts[queue, state] = self._counts.get((queue, state), 0) + change

    def wait(self, group: int, change: int) -> None:
        """``change`` more tasks of that group wait."""
        self._waiting[group] = self._waiting.get(group, 0) + change

    def group(self, name: str, version: int, shape: str) -> int:
        """The id of that group, made if it is new."""
        alike = (name, version, shape)
        known = self._groups.get(alike)
        if known is not None:
            return known
        found = self._connection.execute(_GROUP, alike).fetchone()
        number = found[0] if found else self._connection.execute(_NEW_GROUP, alike).lastrowid
        assert number is not None  # an INSERT that did not raise has one
        if len(self._groups) >= _GROUPS_KNOWN:
            self._groups.clear()
        self._groups[alike] = int(number)
        return int(number)

    def shape(self, group: int) -> str:
        """The shape of a group, also of one in which nothing waits any more."""
        (shape,) = self._connection.execute(_SHAPE, (group,)).fetchone()
        return str(shape)

    def write(self) -> None:
        """Write the differences into the open transaction; the next one begins without any."""
        counts = [(queue, state.value, n) for (queue, state), n in self._counts.items() if n]
        waiting = [(n, group) for group, n in self._waiting.items() if n]
        if counts:
            self._connection.executemany(_ADD_COUNT, counts)
            gone = [(queue, state) for queue, state, n in counts if n < 0]
            self._connection.executemany(_FORGET_EMPTY, gone)
        if waiting:
            self._connection.executemany(_ADD_WAITING, waiting)
        self._counts.clear()
        self._waiting.clear()

    def copy(self) -> Tally:
        """Another with the same differences, to go on with if a savepoint is rolled back: it knows
        no group that was made after the savepoint."""
        made = Tally(self._connection)
        made._counts = self._counts.copy()
        made._waiting = self._waiting.copy()
        return made

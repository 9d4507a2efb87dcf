"""The counters of one transaction: of tasks by queue and state, by group, and by user.

Runs in the writer thread. Differences are gathered in memory and written once, before the commit:
a thousand submits to one queue cost one update, not a thousand.

Invariant: what is gathered here are the differences that the transaction made to ``tasks``. If a
savepoint is rolled back, the ``copy`` made at it takes over; if the transaction is, a new Tally.
After every commit ``owners_as_of`` has the number of the last event: by that, 0.2 knows that
``owners`` is exact.
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
_FORGET_COUNT = "delete from counts where queue = ? and state = ? and tasks = 0"
_OWNER = "select tasks, bytes from owners where owner = ?"
_ADD_OWNER = (
    "insert into owners (owner, tasks, bytes) values (?, ?, ?) on conflict (owner) do update"
    " set tasks = tasks + excluded.tasks, bytes = bytes + excluded.bytes"
)
_FORGET_OWNER = "delete from owners where owner = ? and tasks = 0"
_SET_AS_OF = (
    "update owners_as_of set event = (select coalesce(max(number), 0) from events),"
    " batch = ?, outcomes = ? where id = 1"
)


class Tally:
    """Differences by (queue, state), by group and by owner since the transaction began."""

    __slots__ = ("_connection", "_counts", "_groups", "_owners", "_waiting")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._counts: dict[tuple[str, State], int] = {}
        self._waiting: dict[int, int] = {}
        self._owners: dict[int, tuple[int, int]] = {}
        self._groups: dict[tuple[str, int, str], int] = {}

    def count(self, queue: str, state: State, change: int) -> None:
        """``change`` more tasks of that queue are in that state."""
        self._counts[queue, state] = self._counts.get((queue, state), 0) + change

    def wait(self, group: int, change: int) -> None:
        """``change`` more tasks of that group wait."""
        self._waiting[group] = self._waiting.get(group, 0) + change

    def own(self, owner: int, tasks: int, size: int) -> None:
        """``tasks`` more of ``owner``, with ``size`` bytes of arguments in all, are not over."""
        known = self._owners.get(owner, (0, 0))
        self._owners[owner] = known[0] + tasks, known[1] + size

    def owned(self, owner: int) -> tuple[int, int]:
        """How many tasks that are not over ``owner`` has, and how many bytes of arguments."""
        stored = self._connection.execute(_OWNER, (owner,)).fetchone() or (0, 0)
        gathered = self._owners.get(owner, (0, 0))
        return stored[0] + gathered[0], stored[1] + gathered[1]

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

    def write(self, batch: int, outcomes: bytes) -> None:
        """Write the differences into the open transaction; the next one begins without any.

        ``batch``: the transaction's number; ``outcomes``: what came of its operations, packed."""
        counts = [(queue, state.value, n) for (queue, state), n in self._counts.items() if n]
        waiting = [(n, group) for group, n in self._waiting.items() if n]
        owners = [(owner, *more) for owner, more in self._owners.items() if any(more)]
        for sql, rows in (
            (_ADD_COUNT, counts),
            (_FORGET_COUNT, [(queue, state) for queue, state, n in counts if n < 0]),
            (_ADD_WAITING, waiting),
            (_ADD_OWNER, owners),
            (_FORGET_OWNER, [(owner,) for owner, tasks, _ in owners if tasks < 0]),
        ):
            if rows:
                self._connection.executemany(sql, rows)
        self._connection.execute(_SET_AS_OF, (batch, outcomes))
        for gathered in (self._counts, self._waiting, self._owners):
            gathered.clear()

    def copy(self) -> Tally:
        """Another with the same differences, to go on with if a savepoint is rolled back: it knows
        no group that was made after the savepoint."""
        made = Tally(self._connection)
        made._counts = self._counts.copy()
        made._waiting = self._waiting.copy()
        made._owners = self._owners.copy()
        return made

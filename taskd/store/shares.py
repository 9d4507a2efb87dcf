"""How many tasks that are not over, and bytes of their arguments, each user has in the store.

Runs in the writer thread. As in ``tally``, differences are gathered in memory and written once,
before the commit. An older taskd that does not know this table may have used the store since. Each
change of a state writes an event, so the number of the last event tells whether one has. Then all
tasks are counted, by the first operation that asks: a start must not wait for that, since it takes
a second for some million tasks.

Invariant: while ``_is_true``, the table and ``_gathered`` together agree with ``tasks``. Until then
neither is read or written.
"""

from __future__ import annotations

import sqlite3

from taskd.errors import LimitReached
from taskd.store import schema
from taskd.store.api import Share

_LAST = "select coalesce(max(number), 0) from events"
_AS_OF = "select event from owners_as_of where id = 1"
_SET_AS_OF = "update owners_as_of set event = ? where id = 1"
_ADD = (
    "insert into owners (owner, tasks, bytes) values (?, ?, ?) on conflict (owner) do update"
    " set tasks = tasks + excluded.tasks, bytes = bytes + excluded.bytes"
)
_FORGET_EMPTY = "delete from owners where owner = ? and tasks = 0"
_OWNER = "select tasks, bytes from owners where owner = ?"
_FORGET_ALL = "delete from owners"
_COUNT = (
    "insert into owners (owner, tasks, bytes)"
    " select t.owner, count(*), sum(length(a.value))"
    " from tasks t indexed by tasks_state join arguments a on a.task = t.id"
    f" where t.{schema.LIVE} group by t.owner"
)


class Shares:
    """Differences by owner since the transaction began."""

    __slots__ = ("_connection", "_gathered", "_is_true")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._is_true = False
        self._gathered: dict[int, tuple[int, int]] = {}

    def begin(self) -> None:
        """To be called when the transaction has begun, before its first write."""
        if not self._is_true:
            self._is_true = self._number(_AS_OF) == self._number(_LAST)

    def add(self, owner: int, tasks: int, size: int) -> None:
        """``tasks`` more of ``owner``, with ``size`` bytes of arguments in all, are not over."""
        known = self._gathered.get(owner, (0, 0))
        self._gathered[owner] = known[0] + tasks, known[1] + size

    def check(self, owner: int, share: Share | None, size: int) -> None:
        """Raises LimitReached if a further task with ``size`` bytes of arguments is beyond
        ``share``. Nothing of that task may be written yet."""
        check_room(share)
        if share is None:
            return
        if not self._is_true:
            self._connection.execute(_FORGET_ALL)
            self._connection.execute(_COUNT)
            self._gathered.clear()
            self._is_true = True
        stored = self._connection.execute(_OWNER, (owner,)).fetchone() or (0, 0)
        gathered = self._gathered.get(owner, (0, 0))
        tasks, total = stored[0] + gathered[0], stored[1] + gathered[1]
        if share.tasks is not None and tasks >= share.tasks:
            raise _refusal(owner, f"{tasks:,} tasks", "tasks_per_user", share.tasks)
        if share.bytes is not None and total + size > share.bytes:
            raise _refusal(owner, f"{total:,} bytes of arguments", "bytes_per_user", share.bytes)

    def write(self) -> None:
        """Write the differences into the open transaction; the next one begins without any."""
        if self._is_true:
            changed = [(owner, *more) for owner, more in self._gathered.items() if any(more)]
            self._connection.executemany(_ADD, changed)
            gone = [(owner,) for owner, tasks, _ in changed if tasks < 0]
            self._connection.executemany(_FORGET_EMPTY, gone)
            self._connection.execute(_SET_AS_OF, (self._number(_LAST),))
        self._gathered.clear()

    def copy(self) -> Shares:
        """Another with the same differences, to go on with if a savepoint is rolled back."""
        made = Shares(self._connection)
        made._is_true = self._is_true
        made._gathered = self._gathered.copy()
        return made

    def _number(self, sql: str) -> int:
        found = self._connection.execute(sql).fetchone()
        return -1 if found is None else int(found[0])


def check_room(share: Share | None) -> None:
    """Raises LimitReached if no owner may add a task just now."""
    if share is not None and share.full is not None:
        raise LimitReached(share.full)


def _refusal(owner: int, has: str, key: str, limit: int) -> LimitReached:
    return LimitReached(
        f"user {owner} has {has} that are not over, and [access] {key} is {limit:,}: try again "
        "once some have ended"
    )

"""How many tasks that are not over, and bytes of their arguments, each user has in the store.

Runs in the writer thread. As in ``tally``, differences are gathered in memory and written once,
before the commit.

Invariant: the table and ``_gathered`` together agree with ``tasks``. After every commit
``owners_as_of`` has the number of the last event: by that, 0.2 knows that the table is exact.
"""

from __future__ import annotations

import sqlite3

from taskd.errors import LimitReached
from taskd.store.api import Share

_LAST = "select coalesce(max(number), 0) from events"
_SET_AS_OF = "update owners_as_of set event = ? where id = 1"
_ADD = (
    "insert into owners (owner, tasks, bytes) values (?, ?, ?) on conflict (owner) do update"
    " set tasks = tasks + excluded.tasks, bytes = bytes + excluded.bytes"
)
_FORGET_EMPTY = "delete from owners where owner = ? and tasks = 0"
_OWNER = "select tasks, bytes from owners where owner = ?"


class Shares:
    """Differences by owner since the transaction began."""

    __slots__ = ("_connection", "_gathered")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._gathered: dict[int, tuple[int, int]] = {}

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
        stored = self._connection.execute(_OWNER, (owner,)).fetchone() or (0, 0)
        gathered = self._gathered.get(owner, (0, 0))
        tasks, total = stored[0] + gathered[0], stored[1] + gathered[1]
        if share.tasks is not None and tasks >= share.tasks:
            raise _refusal(owner, f"{tasks:,} tasks", "tasks_per_user", share.tasks)
        if share.bytes is not None and total + size > share.bytes:
            raise _refusal(owner, f"{total:,} bytes of arguments", "bytes_per_user", share.bytes)

    def write(self) -> None:
        """Write the differences into the open transaction; the next one begins without any."""
        changed = [(owner, *more) for owner, more in self._gathered.items() if any(more)]
        self._connection.executemany(_ADD, changed)
        gone = [(owner,) for owner, tasks, _ in changed if tasks < 0]
        self._connection.executemany(_FORGET_EMPTY, gone)
        last = self._connection.execute(_LAST).fetchone()
        self._connection.execute(_SET_AS_OF, last)
        self._gathered.clear()

    def copy(self) -> Shares:
        """Another with the same differences, to go on with if a savepoint is rolled back."""
        made = Shares(self._connection)
        made._gathered = self._gathered.copy()
        return made


def check_room(share: Share | None) -> None:
    """Raises LimitReached if no owner may add a task just now."""
    if share is not None and share.full is not None:
        raise LimitReached(share.full)


def _refusal(owner: int, has: str, key: str, limit: int) -> LimitReached:
    return LimitReached(
        f"user {owner} has {has} that are not over, and [access] {key} is {limit:,}: try again "
        "once some have ended"
    )

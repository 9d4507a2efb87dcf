"""What each user has in the store that is not over: tasks, and bytes of their arguments.

Runs in the writer thread. As in ``tally``, differences are gathered in memory and written once,
before the commit. A taskd that knows nothing of this table may have used the store since; whether
one has, the number of the last event tells, since each change of a state writes one. Then all is
counted anew, by the first operation that asks: that takes a second for some million tasks, and a
start must not.

Invariant: while ``_is_true``, table and ``_gathered`` together are what ``tasks`` says. Until then
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

Mark = tuple[bool, dict[int, tuple[int, int]]]


class Shares:
    """Differences by owner, since the transaction began."""

    __slots__ = ("_connection", "_gathered", "_is_true")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._is_true = False
        self._gathered: dict[int, tuple[int, int]] = {}

    def begin(self) -> None:
        """The transaction has begun; nothing is written in it yet."""
        if not self._is_true:
            self._is_true = self._number(_AS_OF) == self._number(_LAST)

    def add(self, owner: int, tasks: int, size: int) -> None:
        """That many more tasks of ``owner``, with so many bytes of arguments, are not over."""
        known = self._gathered.get(owner, (0, 0))
        self._gathered[owner] = known[0] + tasks, known[1] + size

    def check(self, owner: int, share: Share | None, size: int) -> None:
        """Raises LimitReached if one more task with ``size`` bytes is beyond ``share``. Nothing of
        that task may be written yet."""
        check_room(share)
        if share is None:
            return
        tasks, total = self._of(owner)
        if share.tasks is not None and tasks >= share.tasks:
            raise _refusal(owner, f"{tasks:,} tasks", "tasks_per_user", share.tasks)
        if share.bytes is not None and total + size > share.bytes:
            raise _refusal(owner, f"{total:,} bytes of arguments", "bytes_per_user", share.bytes)

    def write(self) -> None:
        """Into the open transaction; the next one begins with nothing gathered."""
        if self._is_true:
            changed = [(owner, *more) for owner, more in self._gathered.items() if any(more)]
            self._connection.executemany(_ADD, changed)
            gone = [(owner,) for owner, tasks, _ in changed if tasks < 0]
            self._connection.executemany(_FORGET_EMPTY, gone)
            self._connection.execute(_SET_AS_OF, (self._number(_LAST),))
        self._gathered.clear()

    def mark(self) -> Mark:
        """What ``restore`` goes back to when a savepoint is rolled back."""
        return self._is_true, self._gathered.copy()

    def restore(self, mark: Mark) -> None:
        self._is_true, self._gathered = mark

    def forget(self) -> None:
        """The transaction was rolled back, and a count in it as well."""
        self._is_true = False
        self._gathered.clear()

    def _of(self, owner: int) -> tuple[int, int]:
        if not self._is_true:
            self._count()
        tasks, size = self._connection.execute(_OWNER, (owner,)).fetchone() or (0, 0)
        more = self._gathered.get(owner, (0, 0))
        return tasks + more[0], size + more[1]

    def _count(self) -> None:
        self._connection.execute(_FORGET_ALL)
        self._connection.execute(_COUNT)
        self._gathered.clear()
        self._is_true = True

    def _number(self, sql: str) -> int:
        found = self._connection.execute(sql).fetchone()
        return -1 if found is None else int(found[0])


def check_room(share: Share | None) -> None:
    """Raises LimitReached if nobody may add anything just now, however little."""
    if share is not None and share.full is not None:
        raise LimitReached(share.full)


def _refusal(owner: int, has: str, key: str, limit: int) -> LimitReached:
    return LimitReached(
        f"user {owner} has {has} that are not over, and [access] {key} is {limit:,}: try again "
        "once some have ended"
    )

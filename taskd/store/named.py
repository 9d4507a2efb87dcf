"""Named submission ids: known for as long as their submissions say, whatever became of the tasks.

Runs in the writer thread, in the open transaction of a batch.
"""

from __future__ import annotations

from taskd.errors import Refused
from taskd.store.submit_api import REMOVED, Submit, Submitted
from taskd.store.transaction import Transaction

_GONE = 3
"""Old ones that go with each new one."""

_FIND = (
    "select n.task, n.owner, t.id from named n left join tasks t on t.id = n.task"
    " where n.submission = ? and n.until > ?"
)
_PUT = "insert or replace into named (submission, task, owner, until) values (?, ?, ?, ?)"
_EXPIRE = (
    "delete from named where submission in"
    " (select submission from named indexed by named_until where until <= ? limit ?)"
)
_SHIFT = "update named set until = until + ?"


def known(tx: Transaction, new: Submit) -> Submitted | None:
    """What it led to, if that is known by its name alone. Raises Refused."""
    if new.named is None:
        return None
    found = tx.run(_FIND, new.submission, tx.clock()).fetchone()
    if found is None:
        return None
    task, owner, there = found
    if owner != new.owner:
        raise Refused("this submission id is another user's; use another name")
    return Submitted(task, False, REMOVED if there is None else None)


def keep(tx: Transaction, new: Submit, task: int) -> None:
    if new.named is None:
        return
    now = tx.clock()
    tx.run(_EXPIRE, now, _GONE)
    tx.run(_PUT, new.submission, task, new.owner, now + new.named)


def shift(tx: Transaction, seconds: float) -> None:
    tx.run(_SHIFT, seconds)

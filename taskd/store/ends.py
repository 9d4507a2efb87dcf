"""What the end of a task does for others, whatever it was that ended it.

Runs in the writer thread. Every end goes through ``Transaction.change``, which notes it; after each
operation ``told`` lets go what waits behind the task's key (``keys``), and tells those that were to
run after it (``ordering``): a bounded number, which may end others in turn.
"""

from __future__ import annotations

from taskd.store import keys, ordering
from taskd.store.transaction import Transaction

AT_ONCE = 100
"""Waiting tasks that are told of ends in the transaction of an end."""


def told(tx: Transaction, most: int = AT_ONCE) -> tuple[int, ...]:
    """The tasks that may have changed."""
    found: list[int] = []
    while tx.ended:
        ended = [task.id for task in tx.ended]
        found += keys.let_go(tx)  # which forgets them
        if ordering.note(tx, ended):
            some = ordering.pass_on(tx, most)
            found += some
            most -= len(some)
    return tuple(found)

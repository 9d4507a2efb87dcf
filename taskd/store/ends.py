"""What the end of a task does for others, whatever it was that ended it.

Runs in the writer thread. Every end goes through ``Transaction.change``, which notes it; after each
operation ``told`` lets go what waits behind the task's key (``keys``), and tells those that were to
run after it (``ordering``) and the children of one that was cancelled (``family``): a bounded
number, which may end others in turn.
"""

from __future__ import annotations

from taskd.store import family, keys, ordering
from taskd.store.transaction import Transaction

AT_ONCE = 100
"""Waiting tasks that are told of ends in the transaction of an end."""


def told(tx: Transaction, most: int = AT_ONCE) -> tuple[int, ...]:
    """The tasks that may have changed."""
    found: list[int] = []
    while tx.ended:
        ended = [task.id for task in tx.ended]
        found += keys.let_go(tx)  # which forgets them
        is_awaited, are_parents = ordering.note(tx, ended), family.note(tx, ended)
        if is_awaited or are_parents:
            some = pass_on(tx, most)
            found += some
            most -= len(some)
    return tuple(found)


def pass_on(tx: Transaction, most: int) -> list[int]:
    """Go on with what is written down; up to ``most`` tasks."""
    found = ordering.pass_on(tx, most)
    return found + family.cancel_some(tx, most - len(found))

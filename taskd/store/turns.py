"""The order in which ready tasks are claimed: by priority, and among equals owners take turns.

Runs in the writer thread. A task gets its turn, a number, when it becomes ready: one more than its
owner's last turn in that queue at that priority, and no less than the first turn of any owner
there. So an owner who comes late is next, and an owner with a thousand waiting tasks is not served
before another owner's second. Among equal turns the lower id goes first. A claim stays a look-up in
one index.

Tasks that have begun are counted apart: one that comes back (an interruption, a sleep, a retry)
does not wait for all that its owner has submitted since.
"""

from __future__ import annotations

import sqlite3

from taskd.record import Record
from taskd.store import schema

_NEXT = (
    "select max("
    "coalesce((select turn from tasks indexed by tasks_last_turn"
    f" where queue = ?1 and owner = ?2 and priority = ?3 and (attempt > 0) = ?4 and {schema.READY}"
    " order by turn desc limit 1), 0) + 1,"
    " coalesce((select turn from tasks indexed by tasks_turn"
    f" where queue = ?1 and priority = ?3 and {schema.READY} order by turn limit 1), 0))"
)
"""One more than its owner's last turn, and no less than the first of all."""


class Place(Record):
    """The tasks among which turns are counted."""

    queue: str
    owner: int
    priority: int
    begun: bool


def next_at(connection: sqlite3.Connection, place: Place) -> int:
    """The turn of a task that is about to become ready in ``place``."""
    (turn,) = connection.execute(_NEXT, place).fetchone()
    return int(turn)

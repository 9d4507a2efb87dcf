"""The order in which ready tasks are claimed: by priority, and within one in turns between owners.

Runs in the writer thread. A task gets its turn, a number, when it becomes ready: one more than the
last that its owner has in that queue at that priority, and no less than the first that anybody has
there. So who comes late is next, and who has a thousand waiting is not before anybody's second.
Among equal turns the lower id goes first. A claim stays a look into one index.

Tasks that have begun are counted by themselves: one that comes back (an interruption, a sleep, a
retry) does not wait for all that its owner has submitted since. What an older taskd submitted has
no turn, and goes before all that have one; among these, what has begun has none either.
"""

from __future__ import annotations

import sqlite3

from taskd.record import Record
from taskd.store import schema

_FIRST = (
    "select turn from tasks indexed by tasks_turn"
    f" where queue = ? and priority = ? and {schema.READY} and turn > 0 order by turn limit 1"
)
_OLDER = (
    "select 1 from tasks indexed by tasks_turn"
    f" where queue = ? and priority = ? and {schema.READY} and turn is null limit 1"
)
_LAST = (
    "select turn from tasks indexed by tasks_last_turn"
    f" where queue = ? and owner = ? and priority = ? and (attempt > 0) = ? and {schema.READY}"
    " order by turn desc limit 1"
)


class Place(Record):
    """Among which tasks a turn is one more than the last."""

    queue: str
    owner: int
    priority: int
    begun: bool


def next_at(connection: sqlite3.Connection, place: Place) -> int | None:
    """The turn of one more task that becomes ready; it is not so yet."""
    where = place.queue, place.priority
    if place.begun and connection.execute(_OLDER, where).fetchone() is not None:
        return None
    last = connection.execute(_LAST, place).fetchone()
    mine = 1 if last is None or last[0] is None else int(last[0]) + 1
    first = connection.execute(_FIRST, where).fetchone()
    return mine if first is None else max(mine, int(first[0]))

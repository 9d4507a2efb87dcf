"""Removing what is over from the SQLite store: Prepare, Purge and Forget.

Runs in the writer thread, in the open transaction of a batch.

A task goes in two steps, since its files lie outside the store: Purge removes the row and what can
be large, and leaves a row in ``purged``; the master then removes the files; Forget removes the
rest. Whatever dies in between, ``purged`` says what is left to do. A task may have any number of
events and submission ids: Forget removes a bounded number at a time, and nobody sees them
meanwhile.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from taskd.model.task import ENDED, State
from taskd.store import schema
from taskd.store.api import (
    HORIZON,
    Forget,
    Prepare,
    Purge,
)
from taskd.store.tally import Tally

Run = Callable[..., sqlite3.Cursor]

_VALUES = ("arguments", "saved", "results")

_SINCE = "select since from retention where id = 1"
_BEGIN = "insert into retention (id, since) values (1, ?)"
_TASK = "select owner, queue, state, ended from tasks where id = ?"
_SIZES = tuple(f"select length(value) from {table} where task = ?" for table in _VALUES)
_DELETES = (
    "delete from tasks where id = ?",
    *(f"delete from {table} where task = ?" for table in _VALUES),
)
_PURGED = "insert into purged (task, owner, until) values (?, ?, ?)"

_UNTIL = "select until from purged where task = ?"
_EVENTS = (
    "delete from events where number in (select number from events indexed by events_task"
    " where task = ? order by number limit ?)"
)
_SUBMISSIONS = (
    "delete from submissions where submission in (select submission from submissions"
    " indexed by submissions_task where task = ? limit ?)"
)
_NOT_LEFT = "update purged set is_left = 0 where task = ?"
_FORGET = "delete from purged where task = ?"


def prepare(connection: sqlite3.Connection, now: float, order: Prepare) -> float:
    schema.finish(connection)
    found = connection.execute(_SINCE).fetchone()
    if found is None:
        connection.execute(_BEGIN, (now,))
        return order.grace
    since: float | None = found[0]
    return 0.0 if since is None else max(0.0, since + order.grace - now)


def purge(run: Run, tally: Tally, now: float, order: Purge) -> list[int]:
    gone: list[int] = []
    room = order.room
    for task in filter(schema.is_id, order.tasks):
        if room <= 0:
            break
        found = run(_TASK, task).fetchone()
        if found is None:
            continue
        owner, queue, state, ended = found[0], found[1], State(found[2]), found[3]
        if state not in ENDED:
            continue
        if order.ages is not None and ended > now - order.ages.of(queue, state):
            continue
        room -= sum(length for size in _SIZES for (length,) in run(size, task))
        for delete in _DELETES:
            run(delete, task)
        tally.count(queue, state, -1)
        run(_PURGED, task, owner, ended + HORIZON)
        gone.append(task)
    return gone


def forget(run: Run, now: float, order: Forget) -> list[int]:
    done: list[int] = []
    left = order.limit
    for task in filter(schema.is_id, order.tasks):
        found = run(_UNTIL, task).fetchone()
        if found is None:
            continue
        statements = (_EVENTS, _SUBMISSIONS) if found[0] <= now else (_EVENTS,)
        for statement in statements:
            if left > 0:
                left -= run(statement, task, left).rowcount
        if left <= 0:
            break
        run(_FORGET if found[0] <= now else _NOT_LEFT, task)
        done.append(task)
    return done

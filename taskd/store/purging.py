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
from collections.abc import Iterable

from taskd.model.task import ENDED, State
from taskd.store import schema
from taskd.store.api import (
    HORIZON,
    Forget,
    Prepare,
    Purge,
)
from taskd.store.tally import Tally

_SINCE = "select since from retention where id = 1"
_BEGIN = "insert into retention (id, since) values (1, ?)"

_VALUES = ("arguments", "saved", "results")
_SIZES = " + ".join(
    f"coalesce((select {size} from {table} where task = tasks.id), 0)"
    for table, size in (
        *((table, "length(value)") for table in _VALUES),
        ("attempts", "sum(length(error))"),
    )
)
_THESE = "(select value from json_each(?))"
_TASKS = (
    f"select id, owner, queue, state, ended, {_SIZES} from tasks where id in {_THESE}"
    f" and not {schema.IS_AWAITED}"
)
_DELETES = (
    f"delete from tasks where id in {_THESE}",
    *(f"delete from {table} where task in {_THESE}" for table in (*_VALUES, "attempts", "edges")),
    f"delete from children where parent in {_THESE}",
)
_FREE_KEYS = f"delete from keys where task in {_THESE}"

_PURGED = "insert into purged (task, owner, until) values (?, ?, ?)"

_LEFT = f"select task, until from purged where task in {_THESE}"
_EVENTS = (
    "delete from events where number in (select e.number from json_each(?) j"
    " cross join events e indexed by events_task on e.task = j.value limit ?)"
)
_SUBMISSIONS = (
    "delete from submissions where submission in (select s.submission from json_each(?) j"
    " cross join submissions s indexed by submissions_task on s.task = j.value limit ?)"
)
_NOT_LEFT = f"update purged set is_left = 0 where task in {_THESE}"
_FORGET = f"delete from purged where task in {_THESE}"


def prepare(connection: sqlite3.Connection, now: float, order: Prepare) -> float:
    schema.finish(connection)
    found = connection.execute(_SINCE).fetchone()
    if found is None:
        connection.execute(_BEGIN, (now,))
        return order.grace
    since: float | None = found[0]
    return 0.0 if since is None else max(0.0, since + order.grace - now)


def purge(connection: sqlite3.Connection, tally: Tally, now: float, order: Purge) -> list[int]:
    found = {row[0]: row[1:] for row in connection.execute(_TASKS, (_list(order.tasks),))}
    gone: list[tuple[int, int, float]] = []
    unsuccessful = []  # no key is held by one
    room = order.room
    for task in order.tasks:
        owner, queue, state, ended, size = found.pop(task, _UNKNOWN)
        if state not in _OVER or room <= 0:
            continue
        if order.ages is not None and ended > now - order.ages.of(queue, State(state)):
            continue
        room -= size
        tally.count(queue, State(state), -1)
        gone.append((task, owner, ended + HORIZON))
        if state != State.SUCCEEDED.value:
            unsuccessful.append(task)
    tasks = [task for task, _, _ in gone]
    for delete in _DELETES:
        connection.execute(delete, (_list(tasks),))
    connection.executemany(_PURGED, gone)
    connection.execute(_FREE_KEYS, (_list(unsuccessful),))
    return tasks


def forget(connection: sqlite3.Connection, now: float, order: Forget) -> list[int]:
    until = dict(connection.execute(_LEFT, (_list(order.tasks),)).fetchall())
    tasks = [task for task in dict.fromkeys(order.tasks) if task in until]
    due = [task for task in tasks if until[task] <= now]
    later = [task for task in tasks if until[task] > now]
    left = order.limit
    for statement, some in ((_EVENTS, tasks), (_SUBMISSIONS, due)):
        left -= connection.execute(statement, (_list(some), left)).rowcount if left > 0 else 0
    if left <= 0:  # there may be more
        return []
    connection.execute(_NOT_LEFT, (_list(later),))
    connection.execute(_FORGET, (_list(due),))
    return tasks


_UNKNOWN = (0, "", "", 0.0, 0)
_OVER = frozenset(state.value for state in ENDED)


def _list(tasks: Iterable[int]) -> str:
    """As JSON, without ids that no task can have."""
    return str([task for task in tasks if schema.is_id(task)])

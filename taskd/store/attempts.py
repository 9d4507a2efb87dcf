"""Past attempts in SQLite: what is kept of each, and how they are read.

``keep`` runs in the writer thread, in the transaction that ends the attempt; ``attempts`` in the
master's loop. Of a task the first FIRST and the last LAST attempts are kept, each with its error
cut: a task that fails for years takes as much room as one that failed 55 times. The attempt that
runs just now is in no row of this table: it is told from the task's row and its last event.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import cbor2

from taskd.model.task import State
from taskd.protocol import cbor
from taskd.store import schema
from taskd.store.api import Settle
from taskd.store.meter import FEW, ROW, Fetch, Meter
from taskd.store.queries import AttemptsOf, Part
from taskd.store.row_checks import Task
from taskd.store.values import ERROR_LIMIT, FIRST, LAST, TEXT_LIMIT, Attempt

_LAST_EVENT = (
    "select state, at from events indexed by events_task where task = ?"
    " order by number desc limit 1"
)
_KEEP = (
    "insert or replace into attempts"
    " (task, attempt, started, ended, revision, worker, how, reason, error, delay)"
    " values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_DROP = "delete from attempts where task = ? and attempt > ? and attempt <= ?"

_SOME = (
    "select attempt, started, ended, revision, worker, how, reason, error, delay from attempts"
    " where task = ? and attempt > ? order by attempt limit ?"
)
_RUNNING = "select attempt, revision, worker from tasks where id = ? and state = 'running'"

_LEFT_OUT = b"\n... (left out) ...\n"


def keep(run: Callable[..., sqlite3.Cursor], task: Task, end: Settle) -> None:
    """``end``: as it is recorded. Its event is not written yet: the last one began the attempt."""
    state, at = run(_LAST_EVENT, task.id).fetchone()
    error = end.error or end.passing
    cut = error and {part: _cut(text, ERROR_LIMIT) for part, text in error.items()}
    run(
        _KEEP,
        *(task.id, task.attempt, at if state == State.RUNNING.value else None, end.at),
        *(task.revision, task.worker, end.how or end.state.value),
        None if end.reason is None else _cut(end.reason, TEXT_LIMIT),
        None if cut is None else cbor2.dumps(cut),
        end.delay,
    )
    if task.attempt > FIRST + LAST:
        run(_DROP, task.id, FIRST, task.attempt - LAST)


def attempts(fetch: Fetch, query: AttemptsOf) -> Part[Attempt]:
    found: list[Attempt] = []
    after, meter = query.after, Meter()
    rows: list[tuple[Any, ...]] = []
    while schema.is_id(query.task):
        rows = fetch(_SOME, query.task, after, FEW)
        for row in rows:
            after = row[0]
            error = None if row[7] is None else cbor.loads(row[7])
            found.append(Attempt._make((*row[:7], error, row[8])))
            meter.read(ROW, row[6], row[7])
        if len(rows) < FEW:
            break
        if meter.is_used_up:
            return Part(found, query._replace(after=after))
    for number, revision, worker in fetch(_RUNNING, query.task) if schema.is_id(query.task) else ():
        if number > after:
            state, at = fetch(_LAST_EVENT, query.task)[0]
            started = at if state == State.RUNNING.value else None
            found.append(Attempt(number, started, None, revision, worker))
    return Part(found, None)


def _cut(text: str, limit: int) -> str:
    """At most ``limit`` bytes; a longer text loses its middle."""
    raw = text.encode()
    if len(raw) <= limit:
        return text
    half = (limit - len(_LEFT_OUT)) // 2
    return (raw[:half] + _LEFT_OUT + raw[-half:]).decode(errors="ignore")

"""A copy of the SQLite store, made while a daemon writes it, and made ready to be started from.

Runs in a process of its own (``taskd backup``). VACUUM INTO reads one moment, by a connection that
cannot write, and holds up nobody; while it lasts, the daemon's log ("-wal") cannot be cut, so that
it is watched.

The copy is whole by itself: whoever puts it in the store's place, by ``taskd restore`` or by hand,
starts a daemon in which

* everything is paused, until ``taskctl resume --all``, since what waited or ran at the time may
  have been done since;
* each task that ran waits, with what it had saved, or is cancelled if that was asked for;
* what waits says as its reason that it may have run since;
* new ids and event numbers are above those that the daemon may have given out after the copy.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable

from taskd.errors import StoreError
from taskd.model.task import State
from taskd.protocol.saved import RawSaved
from taskd.store import connection
from taskd.store.api import (
    Pause,
    Settle,
)
from taskd.store.queries import Part, RunningRows, StoredData
from taskd.store.reader import SqliteReader
from taskd.store.sqlite import SqliteStore
from taskd.store.values import Row, Scope

JUMP = 1_000_000
"""Ids and event numbers that are left out; as many again as there are, if that is more."""

MOST_LOG = 1 << 30
"""Bytes that the daemon's log may reach meanwhile; as many as the store has, if that is more."""

_LOOK = 0.1

Saved = Callable[[Row, bytes | None], RawSaved | None]
"""What a running task has saved by now, beside what the store has; None: nothing more."""


def copy(path: str, target: str) -> None:
    """Copy the store at ``path`` into ``target``, an empty file. Raises StoreError."""
    reading = connection.open_reading(path)
    most = max(MOST_LOG, os.path.getsize(path))
    is_over = threading.Event()
    too_long = threading.Event()

    def watch() -> None:
        while not is_over.wait(_LOOK):
            with contextlib.suppress(FileNotFoundError):
                if os.path.getsize(f"{path}-wal") > most:
                    too_long.set()
                    reading.interrupt()

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        reading.execute("vacuum into ?", (target,))
    except sqlite3.Error as error:
        if too_long.is_set():
            raise StoreError(
                f"the backup was given up: meanwhile the daemon's log {path}-wal grew beyond "
                f"{most:,} bytes. Try again when less is submitted"
            ) from None
        raise connection.failure(error, target) from error
    finally:
        is_over.set()
        watching.join()
        reading.close()


def make_ready(path: str, by: int, saved: Saved) -> dict[State, int]:
    """Make a copy one that a daemon can be started from, and check it; its tasks by state. ``by``:
    the user who asked. Raises StoreError."""
    at = time.time()
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
    store = SqliteStore(path)
    reader = SqliteReader(path)
    try:
        for row in _all(reader, RunningRows()):
            stored = _all(reader, StoredData((row.id,)))[0].saved
            state = saved(row, stored)
            reason = f"restored: it ran at {when}, and may have run since"
            more = (None, None) if state is None else (state.encode(), state.version)
            end = Settle(
                row.id, row.attempt, State.QUEUED, at, row.budgets,
                reason=reason, error=row.error, saved=more[0], saved_version=more[1],
                if_cancelled=reason,
            )  # fmt: skip
            store.apply(store.last() + 1, [end])
        why = f"restored from the backup of {when}: what waited or ran then may have run since"
        store.apply(store.last() + 1, [Pause(Scope(), by, at, None, why)])
    finally:
        reader.close()
        store.close()
    with contextlib.closing(connection.connect(path, "rw")) as raw, connection.told(path):
        raw.execute("begin immediate")
        raw.execute(
            "update tasks set reason = ? where state in ('queued', 'scheduled') and reason is null",
            (f"restored: it waited at {when}, and may have run since",),
        )
        for table in ("tasks", "events"):
            found = raw.execute("select seq from sqlite_sequence where name = ?", (table,))
            last = (found.fetchone() or (0,))[0]
            raw.execute("delete from sqlite_sequence where name = ?", (table,))
            jumped = last + max(JUMP, last)
            raw.execute("insert into sqlite_sequence (name, seq) values (?, ?)", (table, jumped))
        raw.execute("commit")
        raw.execute("pragma journal_mode = delete")
        check(raw, path)
        counts = raw.execute("select state, sum(tasks) from counts where tasks > 0 group by state")
        return {State(state): int(tasks) for state, tasks in counts}


def check(raw: sqlite3.Connection, path: str) -> None:
    """Raises StoreDamaged."""
    found = raw.execute("pragma integrity_check(1)").fetchone()[0]
    if found != "ok":
        raise connection.damaged(path, found)


def _all(reader: SqliteReader, query: object) -> list:  # type: ignore[type-arg]
    found: list[object] = []
    while query is not None:
        parts: list[Part[object] | StoreError] = []
        reader.ask(query, parts.append)  # type: ignore[arg-type]
        if isinstance(part := parts[0], StoreError):
            raise part
        found += part.found
        query = part.next
    return found

"""The store's file gives back what it does not use; one that 0.2 has made does not."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest
from support.answers import answer

from taskd.store.api import (
    Cancel,
    Forget,
    Purge,
    Submit,
)
from taskd.store.queries import Size, StoreSize
from taskd.store.reader import SqliteReader
from taskd.store.sqlite import SqliteStore


@pytest.fixture
def path(tmp_path: Path) -> str:
    return os.fspath(tmp_path / "store.db")


def filled_and_emptied(path: str) -> SqliteStore:
    store = SqliteStore(path)
    new = [
        Submit(os.urandom(16), 1, "t", 1, bytes(9000), "x", "q", 0, None, None, 0, None, 1.0)
        for _ in range(300)
    ]
    tasks = [each.result.task for each in store.apply(store.last() + 1, new)]
    store.apply(store.last() + 1, [Cancel(task, None, 1.0) for task in tasks])
    gone = store.apply(store.last() + 1, [Purge(tuple(tasks), None, 1 << 30)])
    assert len(gone[0].result) == 300
    store.apply(store.last() + 1, [Forget(tuple(tasks), 10_000)])
    return store


def size(path: str) -> Size:
    reader = SqliteReader(path)
    try:
        found: Size = answer(reader, StoreSize())
        return found
    finally:
        reader.close()


def test_a_store_shrinks_by_what_it_is_told(path: str) -> None:
    store = filled_and_emptied(path)
    before = size(path)
    assert before.shrinks
    assert before.free > 300 * 9000
    store.shrink(100 * 4096)
    now = size(path)
    assert (before.total - now.total, before.free - now.free) == (100 * 4096, 100 * 4096)
    store.shrink(1 << 40)
    store.shrink(1 << 20)
    last = size(path)
    assert last.free == 0
    assert last.total < 300_000
    store.checkpoint()
    assert os.path.getsize(path) == last.total
    raw = sqlite3.connect(path)
    assert raw.execute("pragma integrity_check").fetchone() == ("ok",)
    raw.close()
    store.close()


def test_a_file_that_was_made_otherwise_says_so_and_stays_as_it_is(path: str) -> None:
    raw = sqlite3.connect(path)
    raw.execute("pragma journal_mode = wal")
    raw.execute("create table first (x)")  # as 0.2: the mode is decided with the first table
    raw.execute("drop table first")
    raw.executescript("pragma application_id = 0; pragma user_version = 0")
    raw.close()
    from taskd.store import connection, schema

    raw = connection.connect(path, "rw")
    schema.create(raw)
    raw.close()
    store = filled_and_emptied(path)
    before = size(path)
    assert not before.shrinks
    store.shrink(1 << 20)
    assert size(path) == before
    store.close()


def test_what_takes_long_tells_that_it_goes_on(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the watchdog would end a daemon that writes a large store anew, or adds an index."""
    from taskd.store import connection

    monkeypatch.setattr(connection, "_TICK", 10)
    filled_and_emptied(path).close()
    ticks: list[int] = []
    store = SqliteStore(path, at_work=lambda: ticks.append(1))
    store.compact()
    assert len(ticks) > 1
    assert size(path).free == 0
    store.close()

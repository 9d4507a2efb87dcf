"""The SQLite file: its mode and versions, its indexes, and what SQLite's refusals become."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from submits import new
from support.answers import Reading, answer
from support.taking import EveryKind, claim, ready

from taskd import errors
from taskd.model.task import Budgets, State
from taskd.store import api, connection
from taskd.store.api import (
    Cancel,
    Settle,
)
from taskd.store.queries import (
    Filter,
    Ready,
)
from taskd.store.reader import SqliteReader
from taskd.store.sqlite import SqliteStore


def pragma(path: str, name: str) -> Any:
    raw = sqlite3.connect(path)
    try:
        return raw.execute(f"pragma {name}").fetchone()[0]
    finally:
        raw.close()


# The file


def test_the_file_and_its_log_are_its_owners_alone(path: str) -> None:
    before = os.umask(0)
    try:
        store = SqliteStore(path)
    finally:
        os.umask(before)
    store.apply(store.last() + 1, [new()])
    modes = {name: stat.S_IMODE(os.stat(path + name).st_mode) for name in ("", "-wal", "-shm")}
    store.close()
    assert modes == {"": 0o600, "-wal": 0o600, "-shm": 0o600}


def test_an_existing_file_that_others_could_read_is_closed_to_them(path: str) -> None:
    SqliteStore(path).close()
    os.chmod(path, 0o644)
    SqliteStore(path).close()
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_every_commit_is_synced_and_goes_to_the_log(store: SqliteStore) -> None:
    values = [
        store._connection.execute(f"pragma {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "busy_timeout")
    ]
    assert values == ["wal", 2, 5000]


def test_the_schemas_version_is_in_the_file(store: SqliteStore, path: str) -> None:
    assert pragma(path, "user_version") == api.SCHEMA


@pytest.mark.parametrize("opening", [SqliteStore, SqliteReader])
def test_a_newer_schema_is_refused_and_left_as_it_is(
    path: str, opening: Callable[[str], Any]
) -> None:
    SqliteStore(path).close()
    raw = sqlite3.connect(path)
    raw.execute(f"pragma user_version = {api.SCHEMA + 1}")
    raw.close()
    with pytest.raises(errors.StoreError, match=r"has schema 2.*up to 1; start the newer taskd"):
        opening(path)
    assert pragma(path, "user_version") == api.SCHEMA + 1


@pytest.mark.parametrize("opening", [SqliteStore, SqliteReader])
def test_another_programs_database_is_refused_and_left_as_it_is(
    path: str, opening: Callable[[str], Any]
) -> None:
    raw = sqlite3.connect(path)
    raw.execute("create table theirs (a)")
    raw.close()
    with pytest.raises(errors.StoreError, match="not a taskd store"):
        opening(path)
    assert pragma(path, "journal_mode") == "delete"


def test_a_file_that_is_no_database_is_refused(path: str) -> None:
    Path(path).write_bytes(b"something else entirely\n" * 100)
    with pytest.raises(errors.StoreError, match="damaged, or not a store"):
        SqliteStore(path)


def test_an_empty_file_left_by_a_crash_becomes_a_store(path: str) -> None:
    Path(path).touch()
    store = SqliteStore(path)
    assert len(store.apply(store.last() + 1, [new()])) == 1
    store.close()


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(errors.StoreError, match=r"missing/store\.db.*No such file"):
        SqliteStore(os.fspath(tmp_path / "missing" / "store.db"))


def test_a_reader_needs_a_store(path: str) -> None:
    with pytest.raises(errors.StoreError, match="cannot be opened"):
        SqliteReader(path)
    assert not os.path.exists(path)
    Path(path).touch()
    with pytest.raises(errors.StoreError, match="is empty"):
        SqliteReader(path)


def test_a_reader_opens_a_store_that_nobody_else_has_open(path: str) -> None:
    store = SqliteStore(path)
    store.apply(store.last() + 1, [new()])
    store.close()
    reader = SqliteReader(path)
    assert Reading(reader).counts() == {("q", State.QUEUED): 1}
    reader.close()


def test_a_reader_cannot_write(reader: SqliteReader) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader._connection.execute("delete from tasks")


def test_a_reader_leaves_no_transaction_open(store: SqliteStore, reader: SqliteReader) -> None:
    """A log can be emptied only when no reader stands in it."""
    for _ in range(3):
        store.apply(store.last() + 1, [new()])
        told = Reading(reader)
        told.tasks(Filter(limit=1)), told.groups(), told.counts(), told.events([1, 2])
        ready(reader, "q", 1)
        store.checkpoint()
        assert os.path.getsize(store._path + "-wal") == 0


def test_an_answer_tells_of_one_moment(store: SqliteStore, reader: SqliteReader) -> None:
    """What is committed between its statements is not in it, nor in half of it."""
    tasks = [new(queue="a"), new(queue="b")]
    both = [each.result.task for each in store.apply(store.last() + 1, tasks)]
    cancels = [Cancel(task, None, 2.0) for task in both]

    def meddle(statement: str) -> None:
        if "'a'" in statement and cancels:  # it reads of the first queue
            store.apply(store.last() + 1, cancels)
            cancels.clear()

    wanted = Ready("", {}, 9, EveryKind(), {}, 9)
    reader._connection.set_trace_callback(meddle)
    found = [candidate.task for _, candidate in answer(reader, wanted).found[0].tasks]
    assert not cancels
    assert found == both
    assert answer(reader, wanted).found[0].tasks == []


def test_a_query_that_failed_leaves_no_transaction_open(reader: SqliteReader) -> None:
    reader._connection.set_progress_handler(lambda: 1, 1)  # interrupts
    with pytest.raises(errors.StoreError):
        Reading(reader).groups()
    reader._connection.set_progress_handler(None, 1)
    assert not reader._connection.in_transaction
    assert Reading(reader).groups() == []


def test_a_lock_that_another_process_holds_is_a_store_error_and_passes(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "BUSY_TIMEOUT", 0.01)
    store = SqliteStore(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("begin immediate")
    with pytest.raises(errors.StoreError, match="another process has locked it"):
        store.apply(store.last() + 1, [new()])
    other.execute("rollback")
    assert isinstance(store.apply(store.last() + 1, [new()])[0].result, api.Submitted)
    other.close()
    store.close()


def test_a_damaged_file_is_a_store_error_of_the_reader(path: str) -> None:
    store = SqliteStore(path)
    store.apply(store.last() + 1, [new() for _ in range(200)])
    store.close()
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (os.path.getsize(path) - 4096))
    reader = SqliteReader(path)
    with pytest.raises(errors.StoreError, match="damaged"):
        Reading(reader).tasks(Filter())
    reader.close()


def test_nothing_of_a_batch_that_failed_is_remembered(
    store: SqliteStore, reader: SqliteReader
) -> None:
    """The groups' ids that a rolled-back batch made must not be used by the next one."""
    with pytest.raises(ValueError):
        store.apply(store.last() + 1, [new(shape="lost"), *started(99), new()])
    store.apply(store.last() + 1, [new(shape="other"), new(shape="lost")])
    assert {(group.shape, group.waiting) for group in Reading(reader).groups()} == {
        ("other", 1),
        ("lost", 1),
    }
    assert Reading(reader).counts() == {("q", State.QUEUED): 2}


def started(at: float) -> list[api.Operation]:
    """A task with id 2 that is claimed, and an end that is a bug."""
    end = Settle(2, 1, State.RUNNING, at, Budgets())
    return [new(), claim(2, queue="q", at=at), end]

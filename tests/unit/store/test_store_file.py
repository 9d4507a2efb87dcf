"""The SQLite file: its mode and versions, its indexes, and what SQLite's refusals become."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.answers import Reading, answer
from support.taking import claim, ready, take

from taskd import errors
from taskd.model.task import Budgets, State
from taskd.store import api, connection
from taskd.store.api import (
    Cancel,
    HoldKind,
    Retry,
    Settle,
    Submit,
    SubmitAll,
    Wake,
)
from taskd.store.queries import (
    Events,
    Filter,
    Glances,
    Listed,
    NextDue,
    Query,
    QueueCounts,
    Rows,
    RunningRows,
    Startable,
    StoredData,
    WaitingGroups,
)
from taskd.store.reader import SqliteReader
from taskd.store.sqlite import SqliteStore
from taskd.store.values import Kind


@pytest.fixture
def path(tmp_path: Path) -> str:
    return os.fspath(tmp_path / "a #1 100%? store.db")


@pytest.fixture
def store(path: str) -> Iterator[SqliteStore]:
    made = SqliteStore(path)
    yield made
    made.close()


@pytest.fixture
def reader(store: SqliteStore, path: str) -> Iterator[SqliteReader]:
    made = SqliteReader(path)
    yield made
    made.close()


def new(**fields: Any) -> Submit:
    made = Submit(os.urandom(16), 1, "t", 1, b"args", "x", "q", 0, None, None, 0, None, 1.0)
    return made._replace(**fields)


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


# Indexes


def traced(raw: sqlite3.Connection, call: Callable[[], Any]) -> list[str]:
    """The statements that ``call`` runs on a connection, with their values in place."""
    statements: list[str] = []
    raw.set_trace_callback(statements.append)
    try:
        call()
    finally:
        raw.set_trace_callback(None)
    return statements


def plan(raw: sqlite3.Connection, statement: str) -> list[str]:
    steps = raw.execute("explain query plan " + statement)
    return [row[3].replace(" COVERING", "") for row in steps]  # newer SQLites see more of them


def asked(query: Query[Any]) -> Callable[[SqliteReader], Any]:
    return lambda reader: answer(reader, query)


def listed(**wanted: Any) -> Callable[[SqliteReader], Any]:
    return asked(Listed(Filter(**wanted), True, 1 << 60, 0.0))


EACH = ["LIST SUBQUERY 1", "SCAN json_each VIRTUAL TABLE INDEX 1:"]
"""Of each number in a list."""

READS: dict[str, tuple[Callable[[SqliteReader], Any], list[str]]] = {
    "counts": (
        asked(QueueCounts(frozenset("q"), 5)),
        ["SEARCH counts USING INDEX counts_not_empty ((state,queue)>(?,?))"],
    ),
    "next_due": (  # its first entry: there is no condition but the index's own
        asked(NextDue()),
        ["SCAN tasks USING INDEX tasks_scheduled"],
    ),
    "running": (
        asked(RunningRows(3)),
        [
            "SEARCH tasks USING INDEX tasks_state (state=? AND id>?)",
        ],
    ),
    "rows": (asked(Rows((1, 2))), ["SEARCH tasks USING INTEGER PRIMARY KEY (rowid=?)", *EACH]),
    "glances": (
        asked(Glances((1, 2))),
        ["SEARCH tasks USING INTEGER PRIMARY KEY (rowid=?)", *EACH],
    ),
    "stored": (
        asked(StoredData((1,))),
        [
            "SEARCH arguments USING INTEGER PRIMARY KEY (rowid=?)",
            "SEARCH saved USING INTEGER PRIMARY KEY (rowid=?)",
        ],
    ),
    "events": (
        asked(Events((1,), 3)),
        ["SEARCH events USING INDEX events_task (task=? AND number>?)"],
    ),
    "groups": (
        asked(WaitingGroups()),
        [
            "SEARCH g USING INDEX groups_not_empty (id>?)",
            "CORRELATED SCALAR SUBQUERY 1",
            "SEARCH t USING INDEX tasks_waiting (group_id=?)",
        ],
    ),
    "startable": (
        asked(Startable(frozenset({"t"}))),
        ["SEARCH groups_waiting USING INDEX groups_not_empty (id>?)"],
    ),
    "list": (listed(), ["SEARCH tasks USING INTEGER PRIMARY KEY (rowid<?)"]),
    "list by owner": (
        listed(owner=1),
        ["SEARCH tasks USING INDEX tasks_owner (owner=? AND id<?)"],
    ),
    "list by queue": (
        listed(queue="q", before=9),
        ["SEARCH tasks USING INDEX tasks_queue (queue=? AND id<?)"],
    ),
    "list by name": (
        listed(owner=1, name="t", state=State.SUCCEEDED),
        ["SEARCH tasks USING INDEX tasks_name (name=? AND id<?)"],
    ),
    "list by state": (
        listed(owner=1, name="t", state=State.FAILED, before=9),
        ["SEARCH tasks USING INDEX tasks_state (state=? AND id<?)"],
    ),
}


@pytest.mark.parametrize("name", READS)
def test_a_read_goes_by_its_index_and_sorts_nothing(reader: SqliteReader, name: str) -> None:
    call, expected = READS[name]
    statements = traced(reader._connection, lambda: call(reader))
    steps = [step for each in statements for step in plan(reader._connection, each)]
    assert steps == expected


def test_no_operation_scans_or_sorts(store: SqliteStore) -> None:
    operations = [
        new(key="k"), new(key="k"), SubmitAll((new(delay=9.0), new())), take(1, "q"),
        claim(1, queue="q"), Cancel(1, None, 2.0),
        Settle(1, 1, State.FAILED, 3.0, Budgets(), saved=b"s", saved_version=2), Wake(5),
        Retry(1, None, 4.0), HoldKind("q", Kind("t", 2), "why", 9, 5.0), Cancel(1, None, 6.0),
    ]  # fmt: skip
    raw = store._connection
    statements = traced(raw, lambda: store.apply(store.last() + 1, operations))
    steps = [step for each in statements if "savepoint" not in each for step in plan(raw, each)]
    assert len(steps) > 20
    assert {each for each in steps if "SEARCH" not in each} == {"SCALAR SUBQUERY 1"}
    assert any("tasks_scheduled" in each for each in steps)
    assert any("tasks_key" in each for each in steps)


def work(raw: sqlite3.Connection, call: Callable[[], Any]) -> int:
    """How many steps SQLite's machine takes for ``call``: work, whatever the clock says."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    raw.set_progress_handler(count, 1)
    try:
        call()
    finally:
        raw.set_progress_handler(None, 1)
    return steps


def test_the_work_of_a_claim_does_not_grow_with_the_backlog(
    store: SqliteStore, reader: SqliteReader
) -> None:
    def calls() -> list[int]:
        reads = (lambda: ready(reader, "q", 3), lambda: answer(reader, NextDue()))
        costs = [work(reader._connection, read) for read in reads]
        (task,) = ready(reader, "q", 1)
        taken = work(store._connection, lambda: store.apply(store.last() + 1, [take(1, "q")]))
        end = Settle(task, 1, State.QUEUED, 3.0, Budgets())
        return [
            *costs,
            taken,
            work(store._connection, lambda: store.apply(store.last() + 1, [end])),
        ]

    def grow(count: int) -> None:
        later = [new(delay=9.0 + i, priority=5) for i in range(count)]
        urgent = [new(priority=i % 3) for i in range(count)]
        store.apply(store.last() + 1, [*later, *urgent])
        running = ready(reader, "q", count // 2)
        store.apply(store.last() + 1, [take(count // 2, "q")])
        ended = [Settle(task, 1, State.SUCCEEDED, 3.0, Budgets()) for task in running[4:]]
        store.apply(store.last() + 1, ended)

    grow(20)
    before = calls()
    grow(3000)
    # Some steps more or less are the page at which an index node splits; SQLite's versions differ.
    assert all(now <= then + 10 for now, then in zip(calls(), before, strict=True))

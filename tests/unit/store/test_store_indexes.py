"""The indexes of the SQLite file: each statement goes by one, and none grows with the backlog."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest
from submits import new
from support.answers import answer
from support.taking import claim, ready, take

from taskd.model.order import IfFailed
from taskd.model.retention import Ages
from taskd.model.task import ENDED, Budgets, State
from taskd.store.api import (
    Cancel,
    CancelExpired,
    Forget,
    GoOn,
    HoldKind,
    Purge,
    Recheck,
    Retry,
    Settle,
    SubmitAll,
    Wake,
)
from taskd.store.queries import (
    Events,
    Expired,
    Filter,
    Glances,
    Listed,
    NextDue,
    Purged,
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


CANCEL = IfFailed.CANCEL

EACH = ["LIST SUBQUERY 1", "SCAN json_each VIRTUAL TABLE INDEX 1:"]
"""Of each number in a list."""

READS: dict[str, tuple[Callable[[SqliteReader], Any], list[str]]] = {
    "counts": (
        asked(QueueCounts(frozenset("q"), 5)),
        ["SEARCH counts USING INDEX counts_not_empty ((state,queue)>(?,?))"],
    ),
    "next_due": (  # its first entry: there is no condition but the index's own
        asked(NextDue()),
        [
            "SCAN tasks USING INDEX tasks_scheduled",
            "SEARCH tasks USING INDEX tasks_expiring (expires>?)",
            "SCAN pauses",
            "SCAN concurrency",
            *("SCAN CONSTANT ROW", "SCALAR SUBQUERY 1", "SCAN ends"),
            *("SCALAR SUBQUERY 2", "SCAN downs"),
            "SCAN limit_waits USING INDEX limit_waits_at",
        ],
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
        asked(Events((1,), "3")),
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
    "expired": (
        asked(Expired(Ages(dict.fromkeys(ENDED, 9.0), {}), 5)),
        [
            "SEARCH counts USING INDEX counts_not_empty (state=? AND queue>?)",
            "SEARCH counts USING INDEX counts_not_empty (state=? AND queue>?)",
            "SEARCH tasks USING INDEX tasks_ended (state=? AND queue=? AND ended<?)",
            "CORRELATED SCALAR SUBQUERY 1",
            "SEARCH edges USING INDEX edges_open (waits_on=?)",
            "CORRELATED SCALAR SUBQUERY 2",
            "SEARCH p USING INTEGER PRIMARY KEY (rowid=?)",
            "SEARCH counts USING INDEX counts_not_empty (state=? AND queue>?)",
        ],
    ),
    "purged": (
        asked(Purged(5)),
        [
            "SCAN purged USING INDEX purged_left",
            "SEARCH purged USING INDEX purged_until (until<?)",
        ],
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
def test_a_read_goes_by_its_index_and_sorts_nothing(
    store: SqliteStore, reader: SqliteReader, name: str
) -> None:
    call, expected = READS[name]
    if name == "expired":
        end = Settle(1, 1, State.FAILED, 3.0, Budgets())
        store.apply(store.last() + 1, [new(), claim(1, queue="q"), end])
    statements = traced(reader._connection, lambda: call(reader))
    steps = [step for each in statements for step in plan(reader._connection, each)]
    assert steps == expected


def test_no_operation_scans_or_sorts(store: SqliteStore) -> None:
    operations = [
        new(key="k"), new(key="k"), SubmitAll((new(delay=9.0), new())), take(1, "q"),
        claim(1, queue="q"), Cancel(1, None, 2.0),
        Settle(1, 1, State.FAILED, 3.0, Budgets(), saved=b"s", saved_version=2), Wake(5),
        Retry(1, None, 4.0), HoldKind("q", Kind("t", 2), "why", 9, 5.0), Cancel(1, None, 6.0),
        new(expires=-1.0), take(1, "q"), CancelExpired(5),
    ]  # fmt: skip
    raw = store._connection
    statements = traced(raw, lambda: store.apply(store.last() + 1, operations))
    steps = [step for each in statements if "savepoint" not in each for step in plan(raw, each)]
    assert len(steps) > 20
    others = {each for each in steps if "SEARCH" not in each}
    assert others == {
        *("SCALAR SUBQUERY 1", "SCALAR SUBQUERY 2", "SCAN CONSTANT ROW"),
        *("SCAN pauses", "SCAN concurrency", "SCAN limits"),  # there are few
    }
    assert any("tasks_scheduled" in each for each in steps)
    assert any("tasks_key" in each for each in steps)
    assert any("tasks_expiring" in each for each in steps)


def test_purging_scans_and_sorts_nothing(store: SqliteStore) -> None:
    operations = [
        new(key="k"), new(key="k"), new(), claim(1, queue="q"),
        Settle(1, 1, State.FAILED, 3.0, Budgets(), saved=b"s", saved_version=2),
    ]  # fmt: skip
    store.apply(store.last() + 1, operations)
    removed = [Purge((1, 2), None, 1 << 20), Forget((1,), 100)]
    raw = store._connection
    done: list[Any] = []
    statements = traced(raw, lambda: done.extend(store.apply(store.last() + 1, removed)))
    assert [each.result for each in done] == [[1], [1]]
    steps = [step for each in statements for step in plan(raw, each)]
    assert len(steps) > 12
    scans = {each for each in steps if "SCAN" in each}
    assert scans == {f"SCAN {each} VIRTUAL TABLE INDEX 1:" for each in ("json_each", "j")}
    assert not [each for each in steps if "TEMP B-TREE" in each]
    assert any("submissions_task" in each for each in steps)
    assert any("events_task" in each for each in steps)


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


def test_order_goes_by_its_indexes(store: SqliteStore) -> None:
    operations = [
        new(), new(), *(new(after=(1, 2)) for _ in range(2)), new(after=(1,), if_failed=CANCEL),
        claim(1, queue="q"), Settle(1, 1, State.FAILED, 3.0, Budgets()), Cancel(2, None, 4.0),
        Cancel(3, None, 5.0), Retry(3, None, 6.0), GoOn(5), Recheck(0, 5),
    ]  # fmt: skip
    raw = store._connection
    statements = traced(raw, lambda: store.apply(store.last() + 1, operations))
    steps = [step for each in statements for step in plan(raw, each) if "savepoint" not in each]
    assert any("edges_open" in each for each in steps)
    assert not [each for each in steps if "TEMP B-TREE" in each]
    assert {each for each in steps if "SCAN" in each} == {
        *("SCAN CONSTANT ROW", "SCAN pauses", "SCAN e", "SCAN downs", "SCAN limits"),
        "SCAN json_each VIRTUAL TABLE INDEX 1:",
    }

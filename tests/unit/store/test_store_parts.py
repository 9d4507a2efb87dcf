"""No part of an answer takes long, whatever the store holds: counted in SQLite's steps."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.answers import answer

from taskd.model.task import State
from taskd.store import meter
from taskd.store.queries import (
    Events,
    Filter,
    Glances,
    Listed,
    Part,
    Query,
    QueueCounts,
    Ready,
    Rows,
    RunningRows,
    Shown,
    Startable,
    WaitingGroups,
)
from taskd.store.reader import SqliteReader
from taskd.store.sqlite import SqliteStore
from taskd.store.values import Kind

STEPS = 40 * meter.WORK
"""Steps of SQLite's machine that one part may take: each row that is read takes some 10 to 40."""

MANY = 20_000

NOW = 100.0

ERROR = b"\xa1gmessagey\xff\xff" + b"x" * 0xFFFF
"""A long one, as the store has it (CBOR)."""


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = os.fspath(tmp_path / "store.db")
    SqliteStore(path).close()
    return path


@pytest.fixture
def raw(path: str) -> Iterator[sqlite3.Connection]:
    """To fill the store with what would take a daemon hours."""
    made = sqlite3.connect(path)
    made.execute("pragma synchronous = off")
    yield made
    made.close()


@pytest.fixture
def reader(path: str) -> Iterator[SqliteReader]:
    made = SqliteReader(path)
    yield made
    made.close()


def fill(raw: sqlite3.Connection, tasks: int, **columns: Callable[[int], Any]) -> None:
    """``tasks`` of them; each column is a function of the id."""
    usual: dict[str, Callable[[int], Any]] = {
        "owner": lambda _: 1,
        "queue": lambda _: "q",
        "state": lambda _: "succeeded",
        "priority": lambda _: 0,
        "retries_allowed": lambda _: 0,
        "group_id": lambda _: 1,
        "name": lambda _: "t",
        "version": lambda _: 1,
        "submitted": lambda _: 1.0,
        "attempt": lambda _: 1,
        "started": lambda _: 2.0,
        "ended": lambda _: 3.0,
    }
    given = {**usual, **columns}
    raw.executemany(
        f"insert into tasks (id, {', '.join(given)}) values (?{', ?' * len(given)})",
        ((task, *(value(task) for value in given.values())) for task in range(1, tasks + 1)),
    )
    raw.commit()


def add_events(raw: sqlite3.Connection, events: list[tuple[int, str]]) -> None:
    raw.executemany(
        "insert into events (task, at, state, attempt) values (?, ?, ?, 1)",
        ((task, float(at), state) for at, (task, state) in enumerate(events)),
    )
    raw.commit()


def bounded(reader: SqliteReader, query: Query[Part[Any]]) -> tuple[list[Any], int]:
    """What all parts have found, and how many there were; none of them takes too many steps."""
    found: list[Any] = []
    count, steps = 0, 0

    def step() -> int:
        nonlocal steps
        steps += 100
        return 0

    rest: Query[Part[Any]] | None = query
    reader._connection.set_progress_handler(step, 100)
    while rest is not None:
        steps, asked = 0, rest
        some, rest = answer(reader, asked)
        assert steps <= STEPS, f"{steps} steps for {asked}"
        found += some
        count += 1
    return found, count


@pytest.mark.parametrize(
    "wanted",
    [
        Filter(owner=7, name="t"),
        Filter(owner=7, queue="q"),
        Filter(queue="q", state=State.SUCCEEDED, owner=7),
        Filter(state=State.FAILED, name="rare"),
        Filter(name="t", limit=1000),
        Filter(limit=1000),
    ],
)
def test_a_list_reads_so_many_tasks_at_a_time_whatever_it_finds(
    raw: sqlite3.Connection, reader: SqliteReader, wanted: Filter
) -> None:
    """Two filters that are narrow together, and each of them wide."""
    fill(
        raw,
        MANY,
        owner=lambda task: 7 if task in (5, MANY // 2) else 1,
        state=lambda task: "failed" if MANY // 4 < task < MANY // 2 else "succeeded",
        name=lambda task: "rare" if task == MANY // 3 else "t",
    )
    values = {k: v for k, v in wanted._asdict().items() if k not in ("before", "limit") and v}
    where = " and ".join(f"{column} = ?" for column in values) or "1"
    expected = raw.execute(
        f"select id from tasks where {where} order by id desc limit ?",
        [*(getattr(v, "value", v) for v in values.values()), wanted.limit],
    ).fetchall()
    found, parts = bounded(reader, Listed(wanted, True, 1 << 60, NOW))
    assert [told.row.id for told in found] == [task for (task,) in expected]
    assert parts > 2


def test_large_errors_and_results_make_parts_smaller(
    raw: sqlite3.Connection, reader: SqliteReader
) -> None:
    fill(raw, 60, error=lambda _: ERROR, state=lambda task: "running" if task % 2 else "succeeded")
    raw.executemany(
        "insert into results values (?, ?)", ((task, ERROR) for task in range(2, 61, 2))
    )
    raw.commit()
    largest = 2 * len(ERROR) + meter.BYTES
    for query, count in (
        (RunningRows(), 30),
        (Rows(tuple(range(1, 61))), 60),
        (Shown(tuple(range(1, 61)), NOW), 60),
        (Listed(Filter(), True, 1 << 60, NOW), 60),
    ):
        found, rest = 0, query
        while rest is not None:
            some, rest = answer(reader, rest)
            size = sum(len(ERROR) * (1 + bool(getattr(each, "result", None))) for each in some)
            assert size <= largest
            found += len(some)
        assert found == count


def test_the_time_that_a_task_ran_is_added_up_in_parts(
    raw: sqlite3.Connection, reader: SqliteReader
) -> None:
    fill(raw, 3, attempt=lambda task: 1 if task == 3 else MANY)
    add_events(raw, [(2, state) for _ in range(MANY // 2) for state in ("running", "queued")])
    add_events(raw, [(1, "running")])
    for query in (Shown((1, 2, 3), NOW), Listed(Filter(), False, 1 << 60, NOW)):
        found, parts = bounded(reader, query)
        ran = {told.row.id: told.ran for told in found}
        assert ran == {1: NOW, 2: float(MANY // 2), 3: 1.0}
        assert parts > 5


@pytest.mark.parametrize("behind", [0, MANY // 2, MANY - 3, MANY])
@pytest.mark.parametrize("tasks", [(3,), (3, 4), tuple(range(1, 4001))])
def test_events_come_in_parts_in_the_order_of_their_numbers(
    raw: sqlite3.Connection, reader: SqliteReader, tasks: tuple[int, ...], behind: int
) -> None:
    """Of a task with many, of few tasks among many, and of many."""
    busy = [(3, "queued") if each % 2 else (each % 9000, "queued") for each in range(MANY)]
    add_events(raw, busy)
    expected = [
        number
        for number, task in raw.execute("select number, task from events order by number")
        if task in tasks and number > behind
    ]
    found, _ = bounded(reader, Events(tasks, str(behind)))
    assert [(each.event.number, each.token) for each in found] == [(n, str(n)) for n in expected]


def test_an_idle_stream_is_brought_on_by_looks_at_its_tasks_alone(
    raw: sqlite3.Connection, reader: SqliteReader
) -> None:
    add_events(raw, [(1, "queued"), *[(9, "queued")] * MANY, (2, "queued")])
    found, parts = bounded(reader, Events((1, 2), "1"))
    assert ([each.event.task for each in found], parts) == ([2], 1)


def test_counts_groups_and_glances_come_in_parts(
    raw: sqlite3.Connection, reader: SqliteReader
) -> None:
    raw.executemany(
        "insert into counts values (?, ?, 2)",
        ((f"q{n}", state) for n in range(MANY // 4) for state in ("queued", "failed")),
    )
    raw.executemany(
        "insert into groups_waiting values (?, ?, 1, ?, 1)",
        ((n, f"t{n % 3}", str(n)) for n in range(1, MANY // 4)),
    )
    fill(raw, MANY // 4, state=lambda _: "held", group_id=lambda task: task)
    (counts,), parts = bounded(reader, QueueCounts(frozenset(["q17"]), 3))
    assert counts.totals == {State.QUEUED: MANY // 2, State.FAILED: MANY // 2}
    assert counts.queues["q17"] == {State.QUEUED: 2, State.FAILED: 2}
    assert (len(counts.queues), parts > 5) == (4, True)
    groups, parts = bounded(reader, WaitingGroups())
    assert [group.example for group in groups] == list(range(1, MANY // 4))
    assert parts > 5
    assert bounded(reader, Startable(frozenset({"t1"})))[0] == []
    glances, parts = bounded(reader, Glances(tuple(range(MANY // 4 + 5))))
    assert (len(glances), parts > 5) == (MANY // 4, True)


def test_that_a_name_cannot_be_started_is_found_in_parts(
    raw: sqlite3.Connection, reader: SqliteReader
) -> None:
    raw.execute("insert into groups_waiting values (1, 't', 1, '', 9)")
    fill(raw, MANY, state=lambda task: "queued" if task == MANY else "held")
    found, parts = bounded(reader, Startable(frozenset({"t"})))
    assert (found, parts > 5) == (["t"], True)


def test_every_query_has_an_answer() -> None:
    from taskd.store import answers, queries

    every = {
        q for q in vars(queries).values() if isinstance(q, type) and queries.Query in q.__mro__
    }
    assert set(answers.ANSWERS) == every - {queries.Query}


QUEUES = 2000


@pytest.mark.parametrize("after", ["", "q1", "q999"])
@pytest.mark.parametrize("is_paused", [False, True])
def test_what_is_ready_in_many_queues_is_found_in_parts(
    raw: sqlite3.Connection, reader: SqliteReader, after: str, is_paused: bool
) -> None:
    """Each queue once, in turn, though there are more than a part can look at; if all is paused,
    there is nothing to find in any of them."""
    fill(raw, QUEUES, queue=lambda n: f"q{n}", state=lambda _: "queued", turn=lambda _: 1)
    names = [f"q{n}" for n in range(1, QUEUES + 1)]
    raw.executemany("insert into counts values (?, 'queued', 1)", [(name,) for name in names])
    if is_paused:
        raw.execute("insert into pauses values ('', '', 0, 1.0, null, '')")
    raw.commit()
    wanted = Ready(after, {}, 1, {Kind("t", None): 1}, {}, QUEUES)
    found, parts = bounded(reader, wanted)
    turns = sorted(names, key=lambda name: (name <= after, name))
    told = [queue for part in found for queue, _ in part.tasks]
    assert told == ([] if is_paused else turns)
    assert parts > 10
    some, _ = bounded(reader, wanted._replace(limit=300))
    assert [queue for part in some for queue, _ in part.tasks] == told[:300]
    none, parts_of_none = bounded(reader, wanted._replace(routes={}, limit=200))
    assert [queue for part in none for queue, _ in part.unroutable] == turns[:200]
    assert parts_of_none < parts


def test_what_is_ready_of_many_kinds_is_found_in_parts(
    raw: sqlite3.Connection, reader: SqliteReader
) -> None:
    fill(
        raw,
        500,
        name=lambda n: f"t{n // 2}",
        saved_version=lambda n: n % 2 or None,
        state=lambda _: "queued",
        turn=lambda n: 501 - n,
    )
    raw.execute("insert into counts values ('q', 'queued', 500)")
    raw.commit()
    kinds = [Kind(f"t{n // 2}", n % 2 or None) for n in range(1, 501)]
    routes = dict.fromkeys(kinds[5:], 1)
    found, parts = bounded(reader, Ready("", {}, 3, routes, {}, 9))
    assert [each.task for part in found for _, each in part.tasks] == [500, 499, 498]
    assert {kind for part in found for _, kind in part.unroutable} == set(kinds[:5])
    assert parts > 3


def test_no_part_looks_again_at_each_of_many_kinds(
    raw: sqlite3.Connection, reader: SqliteReader
) -> None:
    """The parts before have told where the head of each stands."""
    kinds, last = 2000, []
    at_work = {"name": lambda n: f"t{n}", "state": lambda _: "queued", "turn": lambda n: -n}
    fill(raw, kinds, **at_work)
    raw.execute("insert into counts values ('q', 'queued', ?)", (kinds,))
    raw.commit()
    routes = {Kind(f"t{n}", None): 1 for n in range(1, kinds + 1)}
    reader._connection.set_trace_callback(last.append)
    rest: Query[Part[Any]] | None = Ready("", {}, 3, routes, {}, 9)
    found, most = [], 0
    while rest is not None:
        last.clear()
        some, rest = answer(reader, rest)
        found += [each.task for part in some for _, each in part.tasks]
        most = max(most, len(last))
    assert found == [kinds, kinds - 1, kinds - 2]
    assert most < 400

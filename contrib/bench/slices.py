"""The longest part of each query's answer, over a store with a million tasks that are over."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any, NamedTuple

from contrib.bench.checkouts import Cost
from taskd.model.task import State
from taskd.store.queries import (
    Events,
    Filter,
    Glances,
    Listed,
    NextDue,
    Part,
    Query,
    QueueCounts,
    Ready,
    Rows,
    RunningRows,
    Shown,
    Startable,
    StoredData,
    WaitingGroups,
)
from taskd.store.reader import SqliteReader
from taskd.store.values import Kind

ROUNDS = 3
"""Each part's time is the least of so many: others use the machine, too."""


class Longest(NamedTuple):
    """Of the parts of one query: how many there were, ms of the longest (of the CPU, and by the
    clock), most rows that one read from SQLite."""

    parts: int
    cpu: float
    wall: float
    rows: int


class _Counting(SqliteReader):
    """Counts the rows that its statements give."""

    rows = 0

    def _fetch(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        found = super()._fetch(sql, *values)
        self.rows += len(found)
        return found


def queries(tasks: int) -> Iterator[tuple[str, Query[Any]]]:
    """Each query, asked for as much as it can be."""
    some = tuple(range(1, tasks, max(1, tasks // 1000)))
    listed = Listed(Filter(limit=1 << 40), True, 1 << 40, 9.0)
    yield "Rows of 1,000", Rows(some)
    yield "Glances of 1,000", Glances(some)
    yield "RunningRows", RunningRows()
    yield "Shown of 1,000", Shown(some, 9.0)
    yield "Shown of 1,000 that are settled", Shown(some, 9.0, only_settled=True)
    yield "Listed, 20,000 of all", listed._replace(filter=Filter(limit=20_000))
    nothing = Filter(state=State.SUCCEEDED, name="nothing", queue="none", owner=1000)
    yield "Listed, by four, finds nothing", listed._replace(filter=nothing)
    owners = Filter(state=State.SUCCEEDED, name="other", owner=1000)
    yield "Listed, by three, finds nothing", listed._replace(filter=owners)
    yield "Events of one", Events((tasks // 2,))
    yield "Events of 1,000", Events(some)
    yield "QueueCounts", QueueCounts(frozenset({"default"}), 100)
    yield "WaitingGroups", WaitingGroups()
    yield "Startable", Startable(frozenset({"nothing", "other"}))
    yield "Ready", Ready("", {"default": 64}, 8, {Kind("nothing", None): 1}, {}, 64)
    yield "StoredData of 1,000", StoredData(some)
    yield "NextDue", NextDue()


def _parts(reader: _Counting, query: Query[Any]) -> tuple[list[Cost], int]:
    """What each part costs, and the most rows of one."""
    costs, most = [], 0
    rest: Any = query
    while rest is not None:
        answers: list[Any] = []
        reader.rows, cpu, wall = 0, time.thread_time(), time.perf_counter()
        reader.ask(rest, answers.append)
        costs.append(Cost(time.thread_time() - cpu, time.perf_counter() - wall))
        most = max(most, reader.rows)
        if isinstance(answers[0], Exception):
            raise answers[0]
        rest = answers[0].next if isinstance(answers[0], Part) else None
    return costs, most


def longest(path: str, tasks: int) -> Iterator[tuple[str, Longest]]:
    with closing(_Counting(path)) as reader:
        for name, query in queries(tasks):
            rounds = [_parts(reader, query) for _ in range(ROUNDS)]
            parts = list(zip(*(costs for costs, _ in rounds), strict=True))
            cpu = max(min(cost.cpu for cost in part) for part in parts) * 1e3
            wall = max(min(cost.wall for cost in part) for part in parts) * 1e3
            yield name, Longest(len(parts), cpu, wall, max(rows for _, rows in rounds))

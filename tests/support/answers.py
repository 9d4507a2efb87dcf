"""What a store answers, for tests: each query to its end, without a loop.

``Reading`` has a word for each query, and gives all else that its reader has.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from taskd.errors import StoreError
from taskd.model.task import State
from taskd.store.queries import (
    Events,
    Filter,
    Listed,
    NextDue,
    Part,
    Query,
    QueueCounts,
    Reader,
    Rows,
    RunningRows,
    Shown,
    StoredData,
    Told,
    WaitingGroups,
)
from taskd.store.values import Event, Group, Row

PARTS = 100_000
"""More than these are asked for by a query that never ends."""


def answer(reader: Reader, query: Query[Any]) -> Any:
    """The answer of a store that answers within the call. Raises StoreError."""
    found: list[Any] = []
    reader.ask(query, found.append)
    if isinstance(found[0], StoreError):
        raise found[0]
    return found[0]


def parts(reader: Reader, query: Query[Part[Any]]) -> list[list[Any]]:
    """What each part has found."""
    found: list[list[Any]] = []
    rest: Query[Part[Any]] | None = query
    while rest is not None:
        some, rest = answer(reader, rest)
        found.append(some)
        assert len(found) < PARTS, f"{query} has no end"
    return found


class Reading:
    """A reader, and what it answers."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def __getattr__(self, name: str) -> Any:
        return getattr(self.reader, name)

    def all(self, query: Query[Part[Any]]) -> list[Any]:
        return [each for some in parts(self.reader, query) for each in some]

    def task(self, task: int) -> Row | None:
        return next(iter(self.all(Rows((task,)))), None)

    def told(self, *tasks: int, now: float = 0.0) -> list[Told]:
        return self.all(Shown(tasks, now))

    def args(self, task: int) -> bytes:
        return bytes(self.all(StoredData((task,)))[0].args)

    def saved(self, task: int) -> bytes | None:
        return next((stored.saved for stored in self.all(StoredData((task,)))), None)

    def result(self, task: int) -> bytes | None:
        return next((told.result for told in self.told(task)), None)

    def tasks(self, wanted: Filter) -> list[Row]:
        return [told.row for told in self.all(Listed(wanted, False, 1 << 60, 0.0))]

    def events(self, tasks: Iterable[int], after: int = 0, limit: int | None = None) -> list[Event]:
        token = self.reader.token(after)
        return [each.event for each in self.all(Events(tuple(tasks), token))][:limit]

    def ran(self, tasks: Iterable[int], now: float) -> dict[int, float]:
        return {t.row.id: t.ran for t in self.told(*tasks, now=now) if t.ran is not None}

    def running_rows(self, after: int = 0) -> list[Row]:
        return self.all(RunningRows(after))

    def groups(self) -> list[Group]:
        return self.all(WaitingGroups())

    def due(self) -> float | None:
        found: float | None = answer(self.reader, NextDue())
        return found

    def states(self, queue: str | None = None) -> dict[State, int]:
        (counts,) = self.all(QueueCounts(frozenset([queue or ""]), 0))
        found: dict[State, int] = counts.totals if queue is None else counts.queues.get(queue, {})
        return found

    def busy(self, most: int) -> list[str]:
        (counts,) = self.all(QueueCounts(frozenset(), most))
        return list(counts.queues)

    def counts(self) -> dict[tuple[str, State], int]:
        """Of every queue that has a task."""
        queues = frozenset(row.queue for row in self.tasks(Filter(limit=1 << 60)))
        (counts,) = self.all(QueueCounts(queues, 0))
        return {(q, state): n for q, of in counts.queues.items() for state, n in of.items()}

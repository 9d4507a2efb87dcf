"""The stores that the conformance suite is run through, and what its tests build on.

A second store is one more line in ``STORES``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import pytest
from support.answers import Reading

from taskd.model.task import Budgets, State
from taskd.store.api import (
    Applied,
    Cancel,
    Claim,
    Operation,
    Retry,
    Row,
    Settle,
    Store,
    Submit,
)
from taskd.store.queries import Reader
from taskd.store.reader import SqliteReader
from taskd.store.sqlite import SqliteStore

Closable = TypeVar("Closable", Store, Reader)


class Kind(NamedTuple):
    """How to open one kind of store; both take the path of a file in an empty directory."""

    store: Callable[[str], Store]
    reader: Callable[[str], Reader]


STORES: dict[str, Kind] = {
    "sqlite": Kind(SqliteStore, SqliteReader),
}


class Bench:
    """One store with a reader, and short words for the operations; the clock is in here."""

    def __init__(self, kind: Kind, path: str) -> None:
        self.kind = kind
        self.path = path
        self.now = 1000.0
        self._open: list[Any] = []
        self.store = self._opened(kind.store(path))
        self.reader = Reading(self._opened(kind.reader(path)))

    def _opened(self, it: Closable) -> Closable:
        self._open.append(it)
        return it

    def reopen(self) -> None:
        self.close()
        self.store = self._opened(self.kind.store(self.path))
        self.reader = Reading(self._opened(self.kind.reader(self.path)))

    def close(self) -> None:
        while self._open:
            self._open.pop().close()

    def apply(self, *operations: Operation) -> list[Applied]:
        self.now += 1
        number = self.store.last() + 1
        applied = self.store.apply(number, operations)
        assert told(self.store.outcome(number)) == told(applied)
        return applied

    def one(self, operation: Operation) -> Any:
        """The result of one operation; a refusal is raised."""
        (applied,) = self.apply(operation)
        if isinstance(applied.result, Exception):
            raise applied.result
        return applied.result

    def new(self, **fields: Any) -> Submit:
        given: dict[str, Any] = {
            "submission": os.urandom(16),
            "owner": 1000,
            "name": "index",
            "version": 1,
            "args": b"\xa1apathb/x",
            "shape": "path",
            "queue": "default",
            "priority": 0,
            "key": None,
            "run_at": None,
            "retries": 0,
            "on_deploy": None,
            "at": self.now,
        }
        return Submit(**{**given, **fields})

    def submit(self, **fields: Any) -> int:
        return int(self.one(self.new(**fields)).task)

    def row(self, task: int) -> Row:
        row = self.reader.task(task)
        assert row is not None
        return row

    def claim(self, task: int, revision: str = "r1") -> Any:
        return self.one(Claim(task, b"worker", revision, self.now))

    def settle(self, task: int, state: State, attempt: int | None = None, **fields: Any) -> Any:
        number = self.row(task).attempt if attempt is None else attempt
        budgets = fields.pop("budgets", Budgets())
        return self.one(Settle(task, number, state, self.now, budgets, **fields))

    def ended(self, task: int, state: State, **fields: Any) -> None:
        """Bring a queued task through an attempt to ``state``."""
        self.claim(task)
        self.settle(task, state, **fields)

    def cancel(self, task: int, owner: int | None = None) -> Any:
        return self.one(Cancel(task, owner, self.now))

    def retry(self, task: int, owner: int | None = None) -> Any:
        return self.one(Retry(task, owner, self.now))

    def in_state(self, state: State, result: bytes | None = None, **fields: Any) -> int:
        """A new task that is in ``state``."""
        if state is State.SCHEDULED:
            return self.submit(run_at=self.now + 1000, **fields)
        task = self.submit(**fields)
        if state is State.RUNNING:
            self.claim(task)
        elif state is not State.QUEUED:
            self.ended(task, state, result=result)
        return task


def told(applied: list[Applied] | None) -> list[Any]:
    """``applied`` so that two can be compared: refusals by type and text."""
    assert applied is not None
    shown = [
        (type(each.result), str(each.result)) if isinstance(each.result, Exception) else each.result
        for each in applied
    ]
    return [each._replace(result=result) for each, result in zip(applied, shown, strict=True)]


@pytest.fixture(params=list(STORES))
def bench(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[Bench]:
    made = Bench(STORES[request.param], str(tmp_path / "store.db"))
    yield made
    made.close()

"""Run with the code of one checkout: what its store costs, without a daemon.

DIRECTORY COUNT: a new store there, with COUNT tasks. Prints a JSON object: of each piece of work
the seconds of CPU and by the clock. It knows the store of 0.2 (read what is ready, then ``Claim``),
and that of today (``Take``).
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from taskd.model.task import Budgets, State
from taskd.store import api
from taskd.store.reader import SqliteReader
from taskd.store.sqlite import SqliteStore


def new(name: str = "nothing") -> api.Submit:
    return api.Submit(
        os.urandom(16), 1000, name, 1, b"\xa1an\x01", "n", "default", 0, None, None, 0, None, 1.0
    )


class Old:
    """The store of 0.2."""

    def __init__(self, path: str) -> None:
        self._store: Any = SqliteStore(path)
        self._reader: Any = SqliteReader(path)

    def apply(self, *operations: Any) -> list[Any]:
        return list(self._store.apply(operations))

    def claim(self, count: int) -> list[int]:
        rows = self._reader.ready("default", count)
        self.apply(*[api.Claim(row.id, b"w%d" % row.id, "r1", 2.0) for row in rows])  # type: ignore[attr-defined]
        for row in rows:
            self._reader.args(row.id)
        return [row.id for row in rows]


class New:
    """The store of today."""

    def __init__(self, path: str) -> None:
        from taskd.store.values import Kind

        self._store: Any = SqliteStore(path)
        self._routes = {Kind("nothing", None): 1}
        self._workers = 0

    def apply(self, *operations: Any) -> list[Any]:
        return list(self._store.apply(self._store._last + 1, operations))

    def claim(self, count: int) -> list[int]:
        self._workers += count
        offers = tuple(
            api.Offer(b"w%d" % n, 1, "r1") for n in range(self._workers - count, self._workers)
        )
        take = api.Take("default", self._routes, {}, offers, 1 << 22, 2.0)
        return [each.task for each in self.apply(take)[0].result]


def end(task: int) -> api.Settle:
    return api.Settle(task, 1, State.SUCCEEDED, 3.0, Budgets(), result=b"\xf6")


def cost(work: Callable[[], object]) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.monotonic()
    work()
    return time.process_time() - cpu, time.monotonic() - wall


def main(directory: str, count: int) -> None:
    path = os.path.join(directory, "store.db")
    store = New(path) if hasattr(api, "Take") else Old(path)
    half = count // 2
    news = [new() for _ in range(count)]
    taken: list[int] = []

    def in_batches(size: int, operations: list[Any]) -> None:
        for start in range(0, len(operations), size):
            store.apply(*operations[start : start + size])

    def claims(size: int) -> None:
        for _ in range(half // size):
            taken.extend(store.claim(size))

    found = {
        "store: submit, alone": cost(lambda: in_batches(1, news[:half])),
        "store: submit, 64 at once": cost(lambda: in_batches(64, news[half:])),
        "store: claim, alone": cost(lambda: claims(1)),
        "store: claim, 8 at once": cost(lambda: claims(8)),
    }
    ends = [end(task) for task in taken]
    found["store: end, alone"] = cost(lambda: in_batches(1, ends[:half]))
    found["store: end, 8 at once"] = cost(lambda: in_batches(8, ends[half:]))
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

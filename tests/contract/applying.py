"""Run by test_store_kills: applies numbered batches to a store until it is killed.

KIND PLACE [OPERATION]: with OPERATION it kills itself within the first batch, before the operation
of that place is applied (or behind the last). Each line on stdout is the number of a batch whose
answer has come.

Batch n submits five tasks named "bN", some with keys, claims the first task of batch n-1, ends that
of n-2, retries that of n-3, cancels and purges the second of n-4, and forgets that of n-5.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator

from stores import STORES
from support.answers import Reading
from support.taking import claim

from taskd.model.task import Budgets, State
from taskd.store.api import (
    Cancel,
    Forget,
    Operation,
    Purge,
    Retry,
    Settle,
    Submit,
    SubmitAll,
)
from taskd.store.queries import Filter

TASKS = 5
OPERATIONS = 10


def main(kind: str, place: str, deadly: int | None = None) -> None:
    opens, where = STORES[kind], (place, time.time)
    store, reader = opens.store(*where), Reading(opens.reader(*where))
    number = store.last()
    while True:
        number += 1
        operations = batch(reader, number)
        store.apply(number, operations if deadly is None else Deadly(operations, deadly))
        os.write(1, b"%d\n" % number)


class Deadly(list[Operation]):
    """Operations of which that one is never reached: the process kills itself before."""

    def __init__(self, operations: list[Operation], at: int) -> None:
        super().__init__(operations)
        self._at = at

    def __iter__(self) -> Iterator[Operation]:
        for place, operation in enumerate(super().__iter__()):
            if place == self._at:
                os.kill(os.getpid(), signal.SIGKILL)
            yield operation
        os.kill(os.getpid(), signal.SIGKILL)


def batch(reader: Reading, number: int) -> list[Operation]:
    keys = (f"z{number}", None, f"a{number}")
    operations: list[Operation] = [new(number, key) for key in keys]
    operations.append(SubmitAll((new(number, None), new(number, f"m{number}"))))
    if number > 1:
        operations.append(claim(first(reader, number - 1), queue="q", worker=b"%d" % number))
    if number > 2:
        end = Settle(first(reader, number - 2), 1, State.FAILED, 2.0, Budgets(), reason="no")
        operations.append(end)
    if number > 3:
        operations.append(Retry(first(reader, number - 3), None, 3.0))
    if number > 4:
        second = first(reader, number - 4) + 1
        operations += [Cancel(second, None, 4.0), Purge((second,), None, 1)]
    if number > 5:
        operations.append(Forget((first(reader, number - 5) + 1,), 100))
    return operations


def new(number: int, key: str | None) -> Submit:
    name, args = f"b{number}", os.urandom(300)
    return Submit(os.urandom(16), 1, name, 1, args, "x", "q", 0, key, None, 0, None, 1.0)


def first(reader: Reading, number: int) -> int:
    """The first task of that batch."""
    return min(row.id for row in reader.tasks(Filter(name=f"b{number}")))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))

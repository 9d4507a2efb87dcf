"""A store that the tests of the writer thread hold up, fail, or lose the answers of."""

from __future__ import annotations

import select
import threading
from collections.abc import Sequence

from taskd import errors
from taskd.store.api import (
    Applied,
    Cancel,
    Operation,
)
from taskd.store.writer import Writer

DEADLINE = 30.0


class Gate:
    """A store that notes its batches; ``closed``, it stays in ``apply`` until it is opened."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.log: list[str] = []
        self.closed = False
        self.entered = threading.Event()
        self.go = threading.Event()
        self.error: BaseException | None = None
        self.opening_error: BaseException | None = None
        self.number = 0
        self.outcomes: list[Applied] = []
        self.loses = self.away = 0

    def opened(self) -> Gate:
        if self.opening_error is not None:
            raise self.opening_error
        self.log.append("open")
        return self

    def last(self) -> int:
        return self.number

    def outcome(self, number: int) -> list[Applied] | None:
        self.log.append(f"asked for {number}")
        if self.away:
            self.away -= 1
            raise errors.StoreError("it is away")
        return self.outcomes if number == self.number else None

    def apply(self, number: int, operations: Sequence[Operation]) -> list[Applied]:
        assert number == self.number + 1
        if self.closed:
            self.entered.set()
            assert self.go.wait(DEADLINE)
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        tasks = [each.task for each in operations if isinstance(each, Cancel)]
        self.batches.append(tasks)
        self.number, self.outcomes = number, [Applied(task, task) for task in tasks]
        if self.loses:
            self.loses -= 1
            raise errors.StoreUnknown("the answer was lost")
        return self.outcomes

    def checkpoint(self) -> None:
        self.log.append(f"checkpoint after {sum(map(len, self.batches))}")
        raise errors.StoreError("the disk is full")

    def close(self) -> None:
        self.log.append("close")


def cancel(number: int) -> Cancel:
    return Cancel(number, None, 1.0)


def drain(writer: Writer, notice: int) -> None:
    """Do as the loop does until every callback has run."""
    while writer.pending:
        ready, _, _ = select.select([notice], [], [], DEADLINE)
        assert ready, "the writer did not say that something is done"
        writer.completions()

"""What the tests of the conformance suite build on: one store with short words for what it does."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from stores import Kind
from support import taking
from support.answers import Reading

from contrib.storm.losing import LosesAnswers, Lost
from taskd.errors import StoreError
from taskd.model.task import Budgets, State
from taskd.store.api import (
    Applied,
    Cancel,
    Operation,
    Retry,
    Settle,
    Store,
    Submit,
    Wake,
)
from taskd.store.values import Row, Taken
from taskd.store.writer import Writer, WriterEnded

DEADLINE = 30.0


class Straight:
    """The store without a writer thread. What it tells of each batch is what it has answered."""

    def __init__(self, open_store: Callable[[], Store]) -> None:
        self._store = open_store()

    def apply(self, operations: Sequence[Operation]) -> list[Applied]:
        number = self._store.last() + 1
        applied = self._store.apply(number, operations)
        assert self._store.last() == number
        assert told(self._store.outcome(number)) == told(applied)
        return applied

    def close(self) -> None:
        self._store.close()


class LosingAnswers:
    """The store behind the writer thread, which has to find out what came of most commits."""

    def __init__(self, open_store: Callable[[], Store]) -> None:
        self._notice = os.eventfd(0, os.EFD_CLOEXEC)
        self._writer = Writer(lambda: LosesAnswers(open_store(), which), self._notice)
        self._writer.start()

    def apply(self, operations: Sequence[Operation]) -> list[Applied]:
        answers: list[Any] = []
        with self._writer._changed:  # all of them in one batch
            for operation in operations:
                self._writer.submit(operation, answers.append)
        self._writer.flush(DEADLINE)
        try:
            self._writer.completions()
        except WriterEnded as ended:
            assert ended.__cause__ is not None
            self._writer.start()
            raise ended.__cause__ from None
        assert len(answers) == len(operations)
        for answer in answers:
            if isinstance(answer, StoreError):
                raise answer
        return answers

    def close(self) -> None:
        assert self._writer.stop(DEADLINE)
        os.close(self._notice)


def which(number: int, tries: int) -> Lost | None:
    """Of four batches one is answered at once; one is committed, one is so at the second try, of
    one the first question finds the store away: the answer of each is lost."""
    fates = {1: [Lost(True)], 2: [Lost(False), Lost(True)], 3: [Lost(True, questions=1)]}
    return dict(enumerate(fates.get(number % 4, []))).get(tries)


class Bench:
    """One store with a reader, and short words for the operations; the clock is in here."""

    def __init__(self, kind: Kind, place: str, way: type[Straight | LosingAnswers]) -> None:
        self._kind = kind
        self._place = place
        self._way = way
        self.now = 1000.0
        self._open()

    def _open(self) -> None:
        self.store = self._way(lambda: self._kind.store(self._place, self.clock))
        opened = self._kind.reader(self._place, self.clock)
        self._close_reader = opened.close
        self.reader = Reading(opened)

    def clock(self) -> float:
        """Stands still but for ``apply``, which sets it a second forward."""
        return self.now

    def reopen(self) -> None:
        self.close()
        self._open()

    def close(self) -> None:
        self._close_reader()
        self.store.close()

    def apply(self, *operations: Operation) -> list[Applied]:
        self.now += 1
        return self.store.apply(operations)

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
            "delay": None,
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
        """The attempt that has begun; None: it is not ready."""
        row = self.reader.task(task)
        queue = "default" if row is None else row.queue
        taken = self.one(taking.claim(task, revision, self.now, queue))
        return taken[0].row.attempt if taken else None

    def ready(self, queue: str = "default", limit: int = 100) -> list[int]:
        return taking.ready(self.reader, queue, limit)

    def settle(self, task: int, state: State, attempt: int | None = None, **fields: Any) -> Any:
        number = self.row(task).attempt if attempt is None else attempt
        budgets = fields.pop("budgets", Budgets())
        return self.one(Settle(task, number, state, self.now, budgets, **fields))

    def wake(self, limit: int, after: float) -> list[int]:
        """What is due ``after`` seconds from now is queued."""
        self.now += after - 1  # ``apply`` adds one
        woken: list[int] = self.one(Wake(limit))
        return woken

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
            return self.submit(delay=1000.0, **fields)
        task = self.submit(**fields)
        if state is State.RUNNING:
            self.claim(task)
        elif state is not State.QUEUED:
            self.ended(task, state, result=result)
        return task


def told(applied: list[Applied] | None) -> list[Any]:
    """``applied`` so that two can be compared: refusals by type and text, and what was taken by id,
    since its row is told as it is when that is asked for."""
    assert applied is not None
    return [each._replace(result=_shown(each.result)) for each in applied]


def _shown(result: Any) -> Any:
    if isinstance(result, Exception):
        return type(result), str(result)
    if isinstance(result, list):
        return [each.task if isinstance(each, Taken) else each for each in result]
    return result


WAYS: dict[str, type[Straight | LosingAnswers]] = {
    "straight": Straight,
    "answers lost": LosingAnswers,
}

"""What every store keeps of each attempt: how it ended, bounded in number and size."""

from __future__ import annotations

from typing import Any

import pytest
from support import taking

from taskd.model.task import Budgets, How, State
from taskd.store.api import Cancel, Purge, Retry, Settle
from taskd.store.queries import AttemptsOf
from taskd.store.values import ERROR_LIMIT, FIRST, LAST, TEXT_LIMIT, Attempt

ERROR = {"type": "ValueError", "message": "no", "traceback": "…"}


def attempts(bench: Any, task: int) -> list[Attempt]:
    found: list[Attempt] = bench.reader.all(AttemptsOf(task))
    return found


def tried(bench: Any, task: int, at: float, **end: Any) -> None:
    """One more attempt: from ``at`` for a second."""
    number = bench.row(task).attempt + 1
    bench.one(taking.claim(task, f"r{number}", at, worker=b"w%d" % number))
    state = end.pop("state", State.QUEUED)
    bench.one(Settle(task, number, state, at + 1, Budgets(), **end))


def test_each_attempt_is_kept_as_it_ended(bench: Any) -> None:
    task = bench.submit()
    assert attempts(bench, task) == []
    tried(bench, task, 5.0, how="interrupted", reason="interrupted: deploy of r2")
    tried(bench, task, 10.0, how="put off", passing=ERROR, reason="put off once, by itself")
    tried(bench, task, 20.0, how="failed", error=ERROR, reason="retry 1 of 2", delay=0.0)
    tried(bench, task, 30.0, state=State.SUCCEEDED, result=b"x")
    assert attempts(bench, task) == [
        Attempt(1, 5.0, 6.0, "r1", b"w1", "interrupted", "interrupted: deploy of r2"),
        Attempt(2, 10.0, 11.0, "r2", b"w2", "put off", "put off once, by itself", ERROR),
        Attempt(3, 20.0, 21.0, "r3", b"w3", "failed", "retry 1 of 2", ERROR),
        Attempt(4, 30.0, 31.0, "r4", b"w4", "succeeded"),
    ]
    assert bench.row(task).error is None, "of one that ended otherwise than by failing"


def test_the_drawn_delay_is_kept_with_the_attempt_that_it_follows(bench: Any) -> None:
    task = bench.submit()
    tried(bench, task, 5.0, state=State.SCHEDULED, how="failed", error=ERROR, delay=37.5)
    assert [each.delay for each in attempts(bench, task)] == [37.5]


def test_the_attempt_that_runs_is_told_without_an_end(bench: Any) -> None:
    task = bench.submit()
    tried(bench, task, 5.0, how="crashed")
    bench.one(taking.claim(task, "r9", 50.0, worker=b"w" * 16))
    assert attempts(bench, task)[1:] == [Attempt(2, 50.0, None, "r9", b"w" * 16)]
    assert bench.reader.all(AttemptsOf(task, 2)) == []


def test_an_end_that_does_not_count_is_kept_nowhere(bench: Any) -> None:
    task = bench.submit()
    tried(bench, task, 5.0)
    for stale in (1, 2):
        bench.one(Settle(task, stale, State.FAILED, 99.0, Budgets(), error=ERROR))
    assert len(attempts(bench, task)) == 1
    assert bench.reader.all(AttemptsOf(1 << 70)) == []
    assert bench.reader.all(AttemptsOf(task + 1)) == []


@pytest.mark.parametrize(
    ("how", "error", "kept"),
    [
        ("interrupted", None, How.CANCELLED),
        ("put off", None, How.CANCELLED),
        ("crashed", None, How.CRASHED),
        ("failed", ERROR, How.FAILED),
    ],
)
def test_a_wish_to_cancel_says_how_an_attempt_ended_that_neither_failed_nor_died(
    bench: Any, how: str, error: Any, kept: How
) -> None:
    task = bench.submit()
    bench.one(taking.claim(task))
    bench.one(Cancel(task, None, 3.0))
    end = {"delay": 60.0} if how == "put off" else {}
    state = State.SCHEDULED if end else State.QUEUED
    bench.one(
        Settle(
            task, 1, state, 4.0, Budgets(), how=how, error=error, if_cancelled="cancelled", **end
        )
    )
    (found,) = attempts(bench, task)
    assert (found.how, found.reason, found.delay) == (kept, "cancelled", None)
    assert bench.row(task).state is State.CANCELLED


def test_the_first_and_the_last_attempts_are_kept(bench: Any) -> None:
    task, other = bench.submit(), bench.submit(priority=-1)
    tried(bench, other, 1.0)
    count = FIRST + LAST + 7
    for number in range(count):
        tried(bench, task, float(number))
    numbers = [each.attempt for each in attempts(bench, task)]
    assert numbers == [*range(1, FIRST + 1), *range(count - LAST + 1, count + 1)]
    assert len(attempts(bench, other)) == 1


def test_long_texts_lose_their_middles(bench: Any) -> None:
    task = bench.submit()
    long = {"type": "E", "message": "a" + "ö" * 10_000 + "z", "traceback": "b" * 70_000 + "y"}
    tried(bench, task, 1.0, state=State.FAILED, error=long, reason="c" * 10_000)
    (found,) = attempts(bench, task)
    assert found.error is not None and found.reason is not None
    message, traceback = found.error["message"], found.error["traceback"]
    assert (message[0], message[-1], traceback[-1]) == ("a", "z", "y")
    assert ERROR_LIMIT - 10 <= len(message.encode()) <= ERROR_LIMIT
    assert len(traceback) <= ERROR_LIMIT and "(left out)" in traceback
    assert len(found.reason) <= TEXT_LIMIT
    assert bench.row(task).error == long, "that of the last attempt is whole"


def test_a_retry_by_hand_keeps_the_attempts_and_a_purge_removes_them(bench: Any) -> None:
    task = bench.submit()
    tried(bench, task, 1.0, state=State.FAILED, error=ERROR)
    bench.one(Retry(task, None, 3.0))
    tried(bench, task, 5.0, state=State.SUCCEEDED, result=b"x")
    assert [each.how for each in attempts(bench, task)] == ["failed", "succeeded"]
    bench.one(Purge((task,), None, 1 << 30))
    assert attempts(bench, task) == []

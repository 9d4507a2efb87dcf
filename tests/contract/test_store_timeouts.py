"""What the store keeps of a try's time: what was used, and that an attempt was told it is over."""

from __future__ import annotations

from typing import Any

import pytest

from taskd.model.task import State
from taskd.store.api import NoteSilence, NoteTimeout


@pytest.mark.parametrize("said", [None, 0.5])
def test_a_submission_says_how_long_a_try_may_run(bench: Any, said: float | None) -> None:
    row = bench.row(bench.submit(timeout=said))
    assert (row.timeout, row.used, row.timed_out) == (said, None, False)


@pytest.mark.parametrize("state", [State.QUEUED, State.SCHEDULED])
def test_what_was_used_is_told_to_the_next_attempt(bench: Any, state: State) -> None:
    task = bench.submit()
    bench.claim(task)
    delay = 5.0 if state is State.SCHEDULED else None
    bench.settle(task, state, used=7.5, delay=delay)
    assert bench.row(task).used == 7.5
    if state is State.SCHEDULED:
        bench.wake(9, after=5.0)
    bench.claim(task)
    assert bench.row(task).used == 7.5
    bench.settle(task, State.QUEUED, used=None)
    bench.claim(task)
    assert bench.row(task).used is None


def test_what_was_used_before_an_attempt_of_another_version_is_forgotten(bench: Any) -> None:
    """0.2 takes and ends attempts, and counts retries, without a look at that column."""
    task = bench.submit()
    bench.claim(task)
    bench.settle(task, State.QUEUED, used=7.5)
    bench.claim(task)
    bench.settle(task, State.QUEUED)  # nothing was used: as if the column were left alone
    bench.claim(task)
    assert bench.row(task).used is None


def test_a_retry_by_hand_begins_a_new_try(bench: Any) -> None:
    task = bench.submit()
    bench.claim(task)
    bench.settle(task, State.HELD, used=7.5)
    bench.retry(task)
    bench.claim(task)
    assert bench.row(task).used is None


def test_that_an_attempt_was_told_counts_for_that_attempt_alone(bench: Any) -> None:
    task = bench.submit()
    bench.claim(task)
    assert bench.one(NoteTimeout(task, 1)) is True
    assert bench.row(task).timed_out
    assert len(bench.reader.events((task,))) == 2
    bench.settle(task, State.QUEUED)
    bench.claim(task)
    assert not bench.row(task).timed_out
    assert bench.one(NoteTimeout(task, 1)) is False, "it is over"
    assert bench.one(NoteTimeout(1 << 70, 1)) is False
    assert not bench.row(task).timed_out


def test_a_silence_is_told_once_until_the_attempt_reports_again(bench: Any) -> None:
    task = bench.submit()
    note = lambda why, attempt=1: bench.one(NoteSilence(task, attempt, why, 5.0))  # noqa: E731
    assert not note("silent")
    bench.claim(task)
    assert note("silent: 5min")
    assert not note("silent: 5min")
    assert not note("silent", 2)
    (*_, event) = bench.reader.events((task,))
    assert (event.state, event.reason, event.attempt, event.at) == (
        State.RUNNING, "silent: 5min", 1, 5.0,
    )  # fmt: skip
    assert not note(None)
    assert note("silent again")
    bench.settle(task, State.QUEUED)
    bench.claim(task)
    assert note("silent", 2)
    assert len(bench.reader.events((task,))) == 7
    assert not bench.one(NoteSilence(1 << 70, 1, "x", 1.0))

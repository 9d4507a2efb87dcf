"""The writer thread: group commit, callbacks in the loop's thread, flush, stop and start again."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from gate import DEADLINE, Gate, cancel, drain
from support.answers import Reading

from taskd import errors
from taskd.model.task import Budgets, State
from taskd.store.api import (
    Applied,
    Settle,
    Submit,
    SubmitAll,
)
from taskd.store.reader import SqliteReader
from taskd.store.sqlite import SqliteStore
from taskd.store.writer import BATCH, Writer, WriterEnded


def test_callbacks_run_in_order_and_in_the_loops_thread(writer: Writer, notice: int) -> None:
    seen: list[Any] = []
    writer.start()
    for number in range(50):
        writer.submit(
            cancel(number), lambda done: seen.append((done.result, threading.get_ident()))
        )
    assert writer.flush(DEADLINE)
    assert (seen, writer.pending) == ([], 50)
    drain(writer, notice)
    assert seen == [(number, threading.get_ident()) for number in range(50)]


def test_what_gathers_during_a_commit_goes_into_the_next_up_to_a_bound(
    writer: Writer, gate: Gate, notice: int
) -> None:
    gate.closed = True
    writer.start()
    writer.submit(cancel(0), lambda done: None)
    assert gate.entered.wait(DEADLINE)
    for number in range(1, 2 * BATCH + 501):
        writer.submit(cancel(number), lambda done: None)
    gate.go.set()
    drain(writer, notice)
    assert [len(batch) for batch in gate.batches] == [1, BATCH, BATCH, 500]
    assert list(chain(*gate.batches)) == list(range(2 * BATCH + 501))


def test_a_large_request_counts_by_its_tasks(writer: Writer, gate: Gate, notice: int) -> None:
    new = Submit(b"s", 1, "t", 1, b"", "", "q", 0, None, None, 0, None, 1.0)
    applied: list[int] = []
    gate.apply = lambda number, operations: [  # type: ignore[method-assign]
        applied.append(len(operations)) or Applied(None, None)
        for _ in operations  # type: ignore[func-returns-value]
    ]
    for count in (BATCH - 1, 1, 1, 3 * BATCH, 1):
        writer.submit(SubmitAll((new,) * count), lambda done: None)
    writer.start()
    drain(writer, notice)
    assert applied == [2, 2, 1, 1, 1]


def test_large_values_are_spread_over_more_commits(writer: Writer, gate: Gate, notice: int) -> None:
    applied: list[int] = []
    gate.apply = lambda number, operations: [  # type: ignore[method-assign]
        applied.append(len(operations)) or Applied(None, None)  # type: ignore[func-returns-value]
        for _ in operations
    ]
    saved = bytes(16 << 20)  # weighs as much as 257 tasks
    for _ in range(5):
        writer.submit(Settle(1, 1, State.QUEUED, 1.0, Budgets(), saved=saved), lambda done: None)
    writer.start()
    drain(writer, notice)
    assert applied == [3, 3, 3, 2, 2]


def test_all_signals_are_blocked_in_the_thread_and_none_in_the_loop(
    gate: Gate, notice: int
) -> None:
    masks: list[set[Any]] = []

    def opened() -> Gate:
        masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        return gate.opened()

    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    writer = Writer(opened, notice)
    writer.start()
    assert writer.stop(DEADLINE)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    assert masks[0] >= signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}


def test_a_store_error_goes_to_every_operation_of_its_batch_and_to_no_other(
    writer: Writer, gate: Gate, notice: int
) -> None:
    gate.error = errors.StoreError("the disk is full")
    gate.closed = True
    seen: list[Any] = []
    for number in range(3):
        writer.submit(cancel(number), seen.append)
    writer.start()
    assert gate.entered.wait(DEADLINE)
    writer.submit(cancel(3), seen.append)
    gate.go.set()
    drain(writer, notice)
    assert [str(each) for each in seen[:3]] == ["the disk is full"] * 3
    assert seen[3] == Applied(3, 3)


def test_a_bug_in_the_store_is_raised_in_the_loop_and_acknowledges_nothing(
    writer: Writer, gate: Gate, notice: int
) -> None:
    gate.error = ValueError("a task that is held cannot hold")
    seen: list[Any] = []
    writer.submit(cancel(1), seen.append)
    writer.start()
    assert not writer.flush(DEADLINE)
    assert select.select([notice], [], [], DEADLINE)[0]
    with pytest.raises(WriterEnded, match="cannot hold"):
        writer.completions()
    assert (seen, writer.pending, gate.log) == ([], 1, ["open", "close"])
    assert not writer.stop(DEADLINE)


def test_a_store_that_does_not_open_fails_the_start_and_a_later_start_works(
    writer: Writer, gate: Gate, notice: int
) -> None:
    gate.opening_error = errors.StoreError("the file is damaged")
    seen: list[Any] = []
    writer.submit(cancel(1), seen.append)
    with pytest.raises(errors.StoreError, match="damaged"):
        writer.start()
    gate.opening_error = None
    writer.start()
    drain(writer, notice)
    assert seen == [Applied(1, 1)]


def test_a_callback_that_raises_does_not_cost_the_others_theirs(
    writer: Writer, notice: int
) -> None:
    seen: list[int] = []

    def fails(done: Any) -> None:
        raise RuntimeError("a bug in the loop")

    for callback in (lambda done: seen.append(0), fails, lambda done: seen.append(2)):
        writer.submit(cancel(0), callback)
    writer.start()
    assert writer.flush(DEADLINE)
    assert select.select([notice], [], [], DEADLINE)[0]
    with pytest.raises(RuntimeError, match="a bug in the loop"):
        writer.completions()
    drain(writer, notice)
    assert seen == [0, 2]


def test_flush_says_no_while_a_commit_hangs(writer: Writer, gate: Gate) -> None:
    gate.closed = True
    writer.start()
    assert writer.flush(0)
    writer.submit(cancel(1), lambda done: None)
    assert gate.entered.wait(DEADLINE)
    assert not writer.flush(0.01)
    gate.go.set()
    assert writer.flush(DEADLINE)


def test_stop_applies_what_waits_closes_the_store_and_ends_the_thread(
    writer: Writer, gate: Gate, notice: int
) -> None:
    threads = set(threading.enumerate())
    for number in range(5):
        writer.submit(cancel(number), lambda done: None)
    writer.start()
    assert writer.stop(DEADLINE)
    assert set(threading.enumerate()) <= threads
    assert gate.log == ["open", "close"]
    assert list(chain(*gate.batches)) == [0, 1, 2, 3, 4]
    drain(writer, notice)


def test_it_starts_again_after_a_stop_and_takes_what_came_between(
    writer: Writer, gate: Gate, notice: int
) -> None:
    seen: list[Any] = []
    writer.start()
    writer.submit(cancel(1), seen.append)
    assert writer.stop(DEADLINE)
    writer.submit(cancel(2), seen.append)
    assert not writer.flush(0)
    writer.start()
    writer.submit(cancel(3), seen.append)
    drain(writer, notice)
    assert [each.result for each in seen] == [1, 2, 3]
    assert gate.log == ["open", "close", "open"]


def test_a_stop_that_ran_out_of_time_is_taken_back_by_a_start(
    writer: Writer, gate: Gate, notice: int
) -> None:
    gate.closed = True
    writer.start()
    writer.submit(cancel(1), lambda done: None)
    assert gate.entered.wait(DEADLINE)
    assert not writer.stop(0.01)
    writer.start()
    gate.go.set()
    drain(writer, notice)
    writer.submit(cancel(2), lambda done: None)
    drain(writer, notice)
    assert gate.log == ["open"]


def test_a_stop_that_ran_out_of_time_still_stops(writer: Writer, gate: Gate) -> None:
    gate.closed = True
    writer.start()
    writer.submit(cancel(1), lambda done: None)
    assert gate.entered.wait(DEADLINE)
    assert not writer.stop(0.01)
    gate.go.set()
    assert writer.stop(DEADLINE)
    assert (gate.batches, gate.log) == ([[1]], ["open", "close"])


def test_a_stop_before_any_start_and_a_second_one_are_nothing(writer: Writer) -> None:
    assert writer.stop(0)
    writer.start()
    assert writer.stop(DEADLINE)
    assert writer.stop(0)


def test_a_checkpoint_comes_after_what_was_submitted_before_it_and_may_fail(
    writer: Writer, gate: Gate, notice: int
) -> None:
    writer.submit(cancel(1), lambda done: None)
    writer.checkpoint()
    writer.submit(cancel(2), lambda done: None)
    writer.start()
    assert writer.flush(DEADLINE)
    assert gate.log == ["open", "checkpoint after 1"]
    assert gate.batches == [[1], [2]]


def test_completions_without_a_notice_are_none(writer: Writer) -> None:
    assert writer.completions() == 0


def test_over_a_real_store_a_checkpoint_empties_the_log(tmp_path: Path, notice: int) -> None:
    path = os.fspath(tmp_path / "store.db")
    writer = Writer(lambda: SqliteStore(path), notice)
    writer.start()
    reader = Reading(SqliteReader(path))
    try:
        submit_some(writer, 2500)
        drain(writer, notice)
        assert sum(reader.counts().values()) == 2500
        writer.checkpoint()
        assert writer.flush(DEADLINE)
        assert os.path.getsize(path + "-wal") == 0
    finally:
        reader.close()
        assert writer.stop(DEADLINE)


def submit_some(writer: Writer, count: int) -> None:
    callback: Callable[[Any], None] = lambda done: None  # noqa: E731
    for _ in range(count):
        new = Submit(os.urandom(16), 1, "t", 1, b"", "", "q", 0, None, None, 0, None, 1.0)
        writer.submit(new, callback)

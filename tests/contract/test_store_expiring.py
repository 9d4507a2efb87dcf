"""Tasks that must start within a time: what is late is taken by nobody, and cancelled."""

from __future__ import annotations

from typing import Any

import pytest
from support import taking

from taskd.model.task import Budgets, State
from taskd.store.api import CancelExpired, HoldKind, Settle, Shift
from taskd.store.values import Kind


def cancelled(bench: Any, limit: int = 9) -> list[int]:
    found: list[int] = bench.one(CancelExpired(limit))
    return found


def test_what_has_not_started_in_time_is_cancelled_with_the_time_as_its_reason(bench: Any) -> None:
    lasting, late = bench.submit(), bench.submit(expires=60.0)
    until = bench.row(late).expires
    assert until == bench.now + 60
    assert cancelled(bench) == []
    bench.now = until - 2
    assert cancelled(bench) == []
    assert cancelled(bench) == [late]
    row = bench.row(late)
    assert (row.state, row.reason) == (State.CANCELLED, "expired: not started within 1min")
    assert (row.ended, row.expires, row.attempt) == (bench.now, None, 0)
    (*_, event) = bench.reader.events((late,))
    assert (event.state, event.reason, event.at) == (row.state, row.reason, bench.now)
    assert bench.row(lasting).state is State.QUEUED


@pytest.mark.parametrize("state", [State.QUEUED, State.SCHEDULED, State.HELD])
def test_a_task_expires_in_every_state_in_which_it_waits_for_its_first_start(
    bench: Any, state: State
) -> None:
    delay = 1000.0 if state is State.SCHEDULED else None
    task = bench.submit(expires=60.0, delay=delay)
    if state is State.HELD:
        bench.one(HoldKind("default", Kind("index", None), "why", 9, 1.0))
    assert bench.row(task).state is state
    bench.now += 60
    assert cancelled(bench) == [task]
    row = bench.row(task)
    assert (row.state, row.run_at) == (State.CANCELLED, None)


def test_a_task_that_has_started_once_expires_no_more(bench: Any) -> None:
    task = bench.submit(expires=60.0)
    assert bench.claim(task) == 1
    bench.now += 100
    assert cancelled(bench) == []
    bench.settle(task, State.QUEUED)
    assert bench.row(task).expires is None
    assert (cancelled(bench), bench.claim(task)) == ([], 2)
    bench.settle(task, State.SCHEDULED, delay=5.0)
    assert (cancelled(bench), bench.row(task).state) == ([], State.SCHEDULED)


def test_no_late_task_is_taken_and_none_of_them_stands_in_the_way(bench: Any) -> None:
    late = [bench.submit(expires=60.0, priority=3) for _ in range(5)]
    in_time = [bench.submit(expires=9000.0), bench.submit()]
    bench.now += 60
    assert bench.ready(limit=2) == late[:2]
    taken = bench.one(taking.take(4))
    assert [each.task for each in taken] == in_time
    assert {bench.row(task).state for task in late} == {State.QUEUED}
    assert cancelled(bench, 3) == late[:3]
    assert cancelled(bench) == late[3:]


def test_nor_is_one_taken_in_the_transaction_that_ends_another(bench: Any) -> None:
    first, late = bench.submit(), bench.submit(expires=60.0)
    bench.claim(first)
    bench.now += 60
    end = Settle(first, 1, State.SUCCEEDED, bench.now, Budgets(), result=b"\xf6")
    _, taken = bench.apply(end, taking.take(1))
    assert taken.result == []
    assert bench.row(late).state is State.QUEUED


def test_a_retry_by_hand_ends_the_time_limit(bench: Any) -> None:
    task = bench.submit(expires=60.0)
    bench.now += 60
    cancelled(bench)
    assert bench.retry(task) is State.QUEUED
    assert (cancelled(bench), bench.row(task).expires) == ([], None)
    assert bench.claim(task) == 1


def test_a_clock_that_was_set_moves_the_time_limit(bench: Any) -> None:
    task = bench.submit(expires=60.0)
    until = bench.row(task).expires
    assert bench.one(Shift(-500.0)) == 0
    assert bench.row(task).expires == until - 500
    assert bench.one(Shift(700.0)) == 0
    assert bench.row(task).expires == until + 200


def test_the_next_time_limit_is_told_as_what_is_next_due(bench: Any) -> None:
    assert bench.reader.due() is None
    bench.submit(expires=60.0)
    assert bench.reader.due() == 60
    bench.submit(delay=30.0)
    assert bench.reader.due() == 30
    bench.submit(expires=9.0)
    assert bench.reader.due() == 9
    bench.now += 100
    assert bench.reader.due() == 0

"""Keys: what a submission does that meets one, keys for a period, and what waits behind a task."""

from __future__ import annotations

from typing import Any

import pytest
from support import taking

from taskd.errors import KeyConflict, LimitReached, Refused
from taskd.model.task import Budgets, State
from taskd.protocol.submission import REFUSE, REPLACE
from taskd.store.api import (
    HORIZON,
    CancelExpired,
    Forget,
    Purge,
    Settle,
    Share,
    Shift,
    Submitted,
)
from taskd.store.keys import NEVER
from taskd.store.submit_api import REMOVED, REPLACED

OTHER = b"\xa1apathb/y"


def put(bench: Any, **fields: Any) -> Submitted:
    found: Submitted = bench.one(bench.new(key="k", **fields))
    return found


def replaced(bench: Any, **fields: Any) -> Submitted:
    return put(bench, if_exists=REPLACE, **fields)


def test_a_submission_that_joins_a_task_is_told_apart(bench: Any) -> None:
    first = put(bench)
    assert first == Submitted(first.task, True)
    assert put(bench) == Submitted(first.task, False)
    again = bench.new(key="k")
    bench.one(again)
    assert bench.one(again) == Submitted(first.task, False)  # sent again


def test_a_key_that_is_taken_can_refuse(bench: Any) -> None:
    new = bench.new(key="k", if_exists=REFUSE)
    task = bench.one(new).task
    assert bench.one(new) == Submitted(task, False)  # the same submission, sent again
    with pytest.raises(KeyConflict, match=rf"is that of task {task} \(index, queued\)"):
        put(bench, if_exists=REFUSE)
    bench.ended(task, State.SUCCEEDED, result=b"\xf6")
    assert put(bench, if_exists=REFUSE).created


@pytest.mark.parametrize("state", [State.QUEUED, State.SCHEDULED])
def test_what_has_not_begun_is_replaced_in_its_place(bench: Any, state: State) -> None:
    delay = None if state is State.QUEUED else 50.0
    task = put(bench, delay=delay).task
    found = replaced(bench, args=OTHER, shape="path,to", version=3, delay=20.0)
    assert found == Submitted(task, False, REPLACED)
    row = bench.row(task)
    assert (row.state, row.version, bench.reader.args(task)) == (state, 3, OTHER)
    assert row.run_at == (None if delay is None else bench.now + 20)
    (group,) = bench.reader.groups()
    assert (group.version, group.shape, group.waiting) == (3, "path,to", 1)
    assert replaced(bench, args=OTHER) == found
    assert bench.row(task).state is State.QUEUED
    assert bench.claim(task) == 1
    with pytest.raises(KeyConflict, match="another name"):
        replaced(bench, name="other")


def test_one_that_is_put_off_again_and_again_is_due_some_day(bench: Any) -> None:
    begin = bench.now
    first = replaced(bench, delay=10.0, at=begin)
    bench.now = begin + 95
    assert replaced(bench, delay=10.0).task == first.task
    assert bench.row(first.task).run_at == begin + 100
    assert replaced(bench, delay=10.0, at_most=97.0).task == first.task
    assert bench.row(first.task).state is State.QUEUED


def test_behind_one_that_runs_one_waits_and_starts_when_that_is_over(bench: Any) -> None:
    first = put(bench).task
    bench.claim(first)
    second = replaced(bench, args=OTHER)
    assert second.created
    row = bench.row(second.task)
    assert (row.state, row.run_at, row.key, row.next_key) == (State.SCHEDULED, NEVER, None, "k")
    third = b"\xa1apathb/z"
    assert replaced(bench, args=third) == Submitted(second.task, False, REPLACED)
    assert bench.reader.args(second.task) == third
    assert bench.one(Shift(100.0)) == 0
    assert bench.wake(9, 1e6) == []
    bench.settle(first, State.QUEUED)
    bench.claim(first)
    bench.settle(first, State.SCHEDULED, delay=5.0)
    assert bench.wake(9, 9.0) == [first]
    assert bench.row(second.task).state is State.SCHEDULED
    bench.claim(first)
    bench.settle(first, State.SUCCEEDED, result=b"\xf6")
    row = bench.row(second.task)
    assert (row.state, row.key, row.next_key) == (State.QUEUED, "k", None)
    assert [each.state for each in bench.reader.events((second.task,))] == ["scheduled", "queued"]
    assert put(bench, args=third) == Submitted(second.task, False)
    assert bench.claim(second.task) == 1


@pytest.mark.parametrize("way", ["failed", "cancelled", "wish", "held and cancelled", "expired"])
def test_however_the_first_ends_the_one_behind_it_is_let_go(bench: Any, way: str) -> None:
    first = put(bench).task
    bench.claim(first)
    second = replaced(bench).task
    if way == "held and cancelled":
        bench.settle(first, State.HELD)
        assert bench.row(second).state is State.SCHEDULED
        bench.cancel(first)
    elif way == "cancelled":
        bench.settle(first, State.QUEUED)
        bench.cancel(first)
    elif way == "expired":
        bench.settle(first, State.SUCCEEDED)
        assert bench.row(second).state is State.QUEUED
        bench.claim(second)
        third = replaced(bench, expires=5.0).task
        bench.now += 9
        assert bench.one(CancelExpired(9)) == [third]
        bench.settle(second, State.FAILED)
        assert bench.row(third).state is State.CANCELLED
        return
    else:
        if way == "wish":
            bench.cancel(first)
        bench.settle(first, State.FAILED)
    assert bench.row(first).ended is not None
    assert (bench.row(second).state, bench.row(second).key) == (State.QUEUED, "k")
    with pytest.raises(KeyConflict):
        if bench.row(first).state is not State.SUCCEEDED:
            bench.retry(first)


def test_in_one_transaction_the_first_ends_and_the_one_behind_it_is_taken(bench: Any) -> None:
    first = put(bench).task
    bench.claim(first)
    second = replaced(bench).task
    applied = bench.apply(Settle(first, 1, State.SUCCEEDED, bench.now, Budgets()), taking.take(1))
    assert applied[0].also == (second,)
    assert [each.task for each in applied[1].result] == [second]


def test_one_behind_is_due_at_its_own_time(bench: Any) -> None:
    first = put(bench).task
    bench.claim(first)
    second = replaced(bench, delay=100.0).task
    due = bench.now + 100
    bench.settle(first, State.SUCCEEDED)
    row = bench.row(second)
    assert (row.state, row.run_at, row.key) == (State.SCHEDULED, due, "k")
    assert bench.wake(9, 200.0) == [second]


def test_one_behind_that_is_cancelled_asks_for_the_key_when_it_is_tried_again(bench: Any) -> None:
    first = put(bench).task
    bench.claim(first)
    second = replaced(bench).task
    assert bench.cancel(second).state is State.CANCELLED
    assert bench.row(second).key == "k"
    with pytest.raises(KeyConflict, match=f"now that of task {first}"):
        bench.retry(second)
    third = replaced(bench).task
    bench.settle(first, State.SUCCEEDED)
    assert bench.row(third).state is State.QUEUED


def test_a_key_is_kept_for_a_period_beyond_its_task(bench: Any) -> None:
    begin = bench.now
    first = put(bench, key_for=1000.0).task
    bench.ended(first, State.SUCCEEDED, result=b"\xf6")
    assert put(bench) == Submitted(first, False)
    assert replaced(bench) == Submitted(first, False)
    with pytest.raises(KeyConflict, match="other arguments"):
        put(bench, args=OTHER)
    with pytest.raises(KeyConflict, match="has the key for a while"):
        put(bench, if_exists=REFUSE)
    assert bench.one(Purge((first,), None, 9)) == [first]
    assert put(bench) == Submitted(first, False, REMOVED)
    with pytest.raises(KeyConflict, match=r"task \d+ \(index, removed\), which has other arg"):
        put(bench, args=OTHER)
    bench.one(Shift(50.0))
    bench.now = begin + 1045
    assert not put(bench, key_for=1000.0).created
    bench.now = begin + 1060
    second = put(bench, key_for=1000.0)
    assert second.created
    bench.ended(second.task, State.SUCCEEDED)
    bench.now = begin + 2000
    assert put(bench) == Submitted(second.task, False)  # the renewed key holds


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED])
@pytest.mark.parametrize("purged", [False, True])
def test_a_task_that_did_not_succeed_frees_its_key_at_once(
    bench: Any, state: State, purged: bool
) -> None:
    first = put(bench, key_for=1000.0).task
    bench.ended(first, state)
    if purged:
        bench.one(Purge((first,), None, 9))
    second = put(bench, args=OTHER)
    assert second.created
    bench.ended(second.task, State.SUCCEEDED)
    assert put(bench).created  # this one said no period


def test_a_key_is_its_tasks_also_if_that_lives_for_longer_than_the_period(bench: Any) -> None:
    first = put(bench, key_for=10.0).task
    bench.now += 100
    assert put(bench) == Submitted(first, False)
    bench.ended(first, State.SUCCEEDED)
    assert put(bench).created


def test_a_replacement_has_the_room_of_what_it_replaces(bench: Any) -> None:
    share = Share(tasks=1, bytes=20)
    task = put(bench, share=share).task
    assert replaced(bench, args=b"x" * 20, share=share).task == task
    with pytest.raises(LimitReached):
        replaced(bench, args=b"x" * 21, share=share)
    assert bench.reader.args(task) == b"x" * 20


@pytest.mark.parametrize("first_over", ["its key's", "the other"])
def test_one_behind_that_also_comes_after_another_waits_for_both(
    bench: Any, first_over: str
) -> None:
    first, other = put(bench).task, bench.submit()
    bench.claim(first)
    bench.claim(other)
    task = replaced(bench, after=(other,)).task
    order = [first, other] if first_over == "its key's" else [other, first]
    for each in order:
        assert bench.row(task).state is State.SCHEDULED
        bench.settle(each, State.SUCCEEDED)
    row = bench.row(task)
    assert (row.state, row.key, row.next_key) == (State.QUEUED, "k", None)
    assert bench.claim(task) == 1


def test_a_named_submission_is_known_for_its_time_whatever_became_of_its_task(bench: Any) -> None:
    new = bench.new(named=1000.0, args=OTHER)
    begin, task = bench.now, bench.one(new).task
    assert bench.one(new) == Submitted(task, False)
    bench.ended(task, State.FAILED)
    bench.now = begin + 500
    bench.one(Purge((task,), None, 9))
    bench.now += HORIZON
    bench.one(Shift(HORIZON))
    bench.one(Forget((task,), 99))
    bench.reopen()
    assert bench.one(new) == Submitted(task, False, REMOVED)
    with pytest.raises(Refused, match="another user's"):
        bench.one(new._replace(owner=7))
    bench.now = begin + HORIZON + 1100
    again = bench.one(new)
    assert again == Submitted(again.task, True)
    joined = bench.new(named=1000.0, key="k", args=OTHER)
    first = put(bench, args=OTHER).task
    assert bench.one(joined) == Submitted(first, False)

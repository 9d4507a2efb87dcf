"""Tasks that come after others: what each end does for those that wait, and what outlasts it."""

from __future__ import annotations

from typing import Any

import pytest

from taskd import errors
from taskd.model.order import IfFailed
from taskd.model.retention import Ages
from taskd.model.task import ENDED, Budgets, State
from taskd.store.api import (
    Cancel,
    CancelExpired,
    Forget,
    GoOn,
    Purge,
    Recheck,
    Settle,
    Shift,
    SubmitAll,
)
from taskd.store.queries import Expired, Shown

OVER = (State.SUCCEEDED, State.FAILED, State.CANCELLED)


def after(bench: Any, *tasks: int, **fields: Any) -> int:
    named = fields.pop("if_failed", None)
    how = {} if named is None else {"if_failed": IfFailed(named)}
    return int(bench.submit(after=tasks, **how, **fields))


def end(bench: Any, task: int, how: str) -> None:
    """Bring a task that is ready to its end, in one of the ways there are."""
    if how == "cancelled while it waits":
        bench.cancel(task)
    elif how == "expired":
        bench.now += 1000
        assert bench.one(CancelExpired(9)) == [task]
    elif how == "cancelled while it runs":
        bench.claim(task)
        bench.cancel(task)
        bench.settle(task, State.QUEUED)
    else:
        bench.claim(task)
        bench.settle(task, State(how), result=b"\xf6" if how == "succeeded" else None)


ENDS = (
    "succeeded",
    "failed",
    "cancelled",
    "cancelled while it waits",
    "cancelled while it runs",
    "expired",
)


@pytest.mark.parametrize("if_failed", [each.value for each in IfFailed])
@pytest.mark.parametrize("how", ENDS)
def test_every_end_is_told_to_what_waits_for_it(bench: Any, how: str, if_failed: str) -> None:
    first = bench.submit(expires=500.0) if how == "expired" else bench.submit()
    waiter = after(bench, first, if_failed=if_failed)
    row = bench.row(waiter)
    assert (row.state, row.waits_for, row.run_at) == (State.SCHEDULED, 1, None)
    end(bench, first, how)
    row = bench.row(waiter)
    if how == "succeeded" or if_failed == "run":
        assert (row.state, row.waits_for) == (State.QUEUED, 0)
        assert bench.claim(waiter) == 1
    elif if_failed == "cancel":
        what = "failed" if how == "failed" else "was cancelled"
        assert row.state is State.CANCELLED
        assert row.reason == f"was to run after task {first}, which {what}"
        assert row.ended is not None
    else:
        assert (row.state, row.waits_for) == (State.SCHEDULED, 1)
        assert bench.retry(first) is State.QUEUED
        assert bench.row(waiter).state is State.SCHEDULED
        end(bench, first, "succeeded")
        assert bench.row(waiter).state is State.QUEUED
    assert bench.one(GoOn(9)) == []


@pytest.mark.parametrize("if_failed", [each.value for each in IfFailed])
@pytest.mark.parametrize("how", ENDS)
def test_what_has_ended_before_counts_as_if_it_ended_now(
    bench: Any, how: str, if_failed: str
) -> None:
    first = bench.submit(expires=500.0) if how == "expired" else bench.submit()
    end(bench, first, how)
    row = bench.row(after(bench, first, if_failed=if_failed))
    goes_on = how == "succeeded" or if_failed == "run"
    otherwise = State.CANCELLED if if_failed == "cancel" else State.SCHEDULED
    assert row.state is (State.QUEUED if goes_on else otherwise)


@pytest.mark.parametrize("state", [State.QUEUED, State.SCHEDULED, State.HELD])
def test_what_is_not_final_is_no_end(bench: Any, state: State) -> None:
    first = bench.submit()
    waiter = after(bench, first, if_failed="cancel")
    bench.claim(first)
    bench.settle(first, state, delay=5.0 if state is State.SCHEDULED else None)
    assert (bench.row(waiter).state, bench.row(waiter).waits_for) == (State.SCHEDULED, 1)


def test_a_task_waits_for_the_last_of_several_and_ends_are_told_in_the_same_transaction(
    bench: Any,
) -> None:
    some = [bench.submit() for _ in range(3)]
    waiter = after(bench, *some)
    for number, task in enumerate(some):
        assert bench.row(waiter).waits_for == 3 - number
        bench.claim(task)
        settle = Settle(task, 1, State.SUCCEEDED, bench.now, Budgets(), result=b"\xf6")
        (applied,) = bench.apply(settle)
        assert applied.also == (waiter,)
    (*_, event) = bench.reader.events((waiter,))
    assert event.state is State.QUEUED


def test_nobody_is_told_of_an_end_that_none_waits_for(bench: Any) -> None:
    task = bench.submit()
    (applied,) = bench.apply(Cancel(task, None, 1.0))
    assert applied.also == ()


def test_many_are_told_in_slices_that_outlast_a_closing(bench: Any) -> None:
    first = bench.submit()
    bench.one(SubmitAll(tuple(bench.new(after=(first,)) for _ in range(250))))
    bench.claim(first)
    (applied,) = bench.apply(Settle(first, 1, State.SUCCEEDED, 1.0, Budgets(), result=b"\xf6"))
    found = list(applied.also)
    assert len(found) == 100
    assert bench.reader.due() == 0
    while some := bench.one(GoOn(60)):
        found += some
        bench.reopen()
    assert sorted(found) == list(range(first + 1, first + 251))
    assert len(bench.ready(limit=1000)) == 250
    assert bench.reader.due() is None


def test_a_cancel_goes_down_a_chain_in_slices(bench: Any) -> None:
    chain = [bench.submit()]
    for _ in range(250):
        chain.append(after(bench, chain[-1], if_failed="cancel"))
    (applied,) = bench.apply(Cancel(chain[0], None, 1.0))
    found = list(applied.also)
    assert len(found) == 100
    while bench.reader.due() == 0:
        (applied,) = bench.apply(GoOn(60))
        found += (*applied.result, *applied.also)
        assert len(applied.result + list(applied.also)) <= 160
    assert found == chain[1:]
    assert {bench.row(task).state for task in chain} == {State.CANCELLED}


def test_a_retry_takes_back_an_end_that_was_not_told_to_all(bench: Any) -> None:
    first = bench.submit()
    bench.one(SubmitAll(tuple(bench.new(after=(first,)) for _ in range(250))))
    end(bench, first, "failed")
    assert bench.retry(first) is State.QUEUED
    assert bench.one(GoOn(1000)) == []
    assert bench.ready(limit=1000) == [first]
    end(bench, first, "succeeded")
    bench.one(GoOn(1000))
    assert len(bench.ready(limit=1000)) == 250


def test_it_is_due_at_its_own_time_once_it_waits_no_more(bench: Any) -> None:
    first, second = bench.submit(), bench.submit()
    delayed = after(bench, first, second, delay=1000.0)
    promised = after(bench, first, second, due=5000.0)
    past = after(bench, first, second, due=1.0)
    due = bench.row(delayed).run_at
    assert bench.one(Shift(100.0)) == 0
    assert (bench.row(delayed).run_at, bench.row(promised).run_at) == (due + 100, 5000.0)
    assert bench.reader.due() is None
    end(bench, first, "succeeded")
    end(bench, second, "succeeded")
    assert bench.row(past).state is State.QUEUED
    row = bench.row(delayed)
    assert (row.state, row.run_at, row.waits_for) == (State.SCHEDULED, due + 100, 0)
    assert bench.one(Shift(50.0)) == 1
    assert (bench.row(delayed).run_at, bench.row(promised).run_at) == (due + 150, 5000.0)
    assert bench.wake(9, 10_000.0) == [delayed, promised]


def test_an_unknown_task_is_refused_and_another_owners_too(bench: Any) -> None:
    other = bench.submit(owner=7)
    for task in (0, 1 << 70, other + 1, other):
        with pytest.raises(errors.UnknownTask):
            after(bench, task)
    assert bench.row(after(bench, other, after_any=True)).waits_for == 1
    purged = bench.submit()
    end(bench, purged, "succeeded")
    bench.one(Purge((purged,), None, 1 << 20))
    with pytest.raises(errors.UnknownTask):
        after(bench, purged)


def test_a_refused_request_cancels_nothing(bench: Any) -> None:
    failed = bench.submit()
    end(bench, failed, "failed")
    new = bench.new(after=(failed,), if_failed=IfFailed.CANCEL)
    with pytest.raises(errors.UnknownTask):
        bench.one(SubmitAll((new, bench.new(after=(9999,)))))
    (both,) = bench.apply(SubmitAll((new, bench.new(after=(failed,)))))
    assert [bench.row(each.task).state for each in both.result] == [
        State.CANCELLED,
        State.SCHEDULED,
    ]


def test_one_that_is_cancelled_while_it_waits_waits_again_after_a_retry(bench: Any) -> None:
    first, second = bench.submit(), bench.submit()
    waiter = after(bench, first, second)
    bench.cancel(waiter)
    end(bench, first, "succeeded")
    assert bench.row(waiter).state is State.CANCELLED
    assert bench.retry(waiter) is State.SCHEDULED
    assert bench.row(waiter).waits_for == 1
    end(bench, second, "succeeded")
    assert bench.row(waiter).state is State.QUEUED
    end(bench, waiter, "failed")
    assert bench.retry(waiter) is State.QUEUED


def test_a_retry_is_refused_if_the_task_would_be_cancelled_at_once(bench: Any) -> None:
    first = bench.submit()
    waiter = after(bench, first, if_failed="cancel")
    end(bench, first, "failed")
    with pytest.raises(errors.Refused, match=f"task {first}, .* failed; retry that one first"):
        bench.retry(waiter)
    bench.retry(first)
    assert bench.retry(waiter) is State.SCHEDULED
    end(bench, first, "succeeded")
    assert bench.row(waiter).state is State.QUEUED


@pytest.mark.parametrize("over", OVER)
def test_nothing_that_another_waits_for_is_purged(bench: Any, over: State) -> None:
    ages = Ages(dict.fromkeys(ENDED, 0.0), {})
    task, second = bench.submit(), bench.submit()
    waiter = after(bench, task, second)
    end(bench, task, over.value)
    is_awaited = over is not State.SUCCEEDED
    bench.now += 10
    assert bench.one(Purge((task,), None, 1 << 20)) == ([] if is_awaited else [task])
    if is_awaited:
        assert bench.reader.all(Expired(ages, 9)) == []
        bench.cancel(waiter)
        bench.now += 10
        assert set(bench.reader.all(Expired(ages, 9))) == {waiter, task}
        assert bench.one(Purge((task,), None, 1 << 20)) == [task]
        with pytest.raises(errors.Refused, match="has been removed"):
            bench.retry(waiter)


def test_what_a_purged_task_waited_for_is_forgotten_with_it(bench: Any) -> None:
    task = bench.submit()
    waiter = after(bench, task)
    bench.cancel(waiter)
    bench.one(Purge((waiter,), None, 1 << 20))
    bench.one(Forget((waiter,), 100))
    (applied,) = bench.apply(Cancel(task, None, 1.0))
    assert applied.also == ()


def test_it_is_told_after_what_it_comes(bench: Any) -> None:
    first, second = bench.submit(), bench.submit()
    waiter = after(bench, first, second)
    end(bench, first, "succeeded")
    (told,) = bench.reader.all(Shown((waiter,), bench.now))
    assert told.after == ((second, State.QUEUED), (first, State.SUCCEEDED))


def test_a_recheck_finds_every_end_that_nobody_was_told_of(bench: Any) -> None:
    tasks = [bench.submit() for _ in range(5)]
    for task in tasks:
        after(bench, task)
    assert bench.one(Recheck(0, 2)) == tasks[1]
    assert bench.one(Recheck(tasks[1], 2)) == tasks[3]
    assert bench.one(Recheck(tasks[3], 2)) is None
    assert bench.one(GoOn(9)) == []


def test_a_task_that_is_replaced_by_its_key_goes_on_waiting(bench: Any) -> None:
    first = bench.submit()
    waiter = after(bench, first, key="k")
    replaced = bench.one(bench.new(key="k", args=b"\xa1apathb/y", if_exists="replace-waiting"))
    assert (replaced.task, bench.row(waiter).waits_for) == (waiter, 1)
    assert bench.row(waiter).state is State.SCHEDULED
    end(bench, first, "succeeded")
    assert bench.row(waiter).state is State.QUEUED


def test_what_is_cancelled_down_a_chain_lets_go_what_waits_behind_its_key(bench: Any) -> None:
    first = bench.submit()
    waiter = after(bench, first, if_failed="cancel", key="k")
    end(bench, first, "failed")
    assert bench.row(waiter).state is State.CANCELLED
    assert bench.submit(key="k") != waiter


def test_tasks_of_one_request_come_after_earlier_ones_of_it(bench: Any) -> None:
    new = (bench.new(), bench.new(), bench.new(after_new=(0, 1)))
    first, second, then = (each.task for each in bench.one(SubmitAll(new)))
    assert bench.row(then).waits_for == 2
    again = bench.one(SubmitAll(new))
    assert [(each.task, each.created) for each in again] == [
        *((first, False), (second, False), (then, False))
    ]
    end(bench, first, "succeeded")
    end(bench, second, "failed")
    assert bench.row(then).state is State.SCHEDULED
    bench.retry(second)
    end(bench, second, "succeeded")
    assert bench.row(then).state is State.QUEUED


def test_a_place_that_does_not_stand_before_it_refuses_the_request(bench: Any) -> None:
    for places in ((1,), (2,), (-1,)):
        with pytest.raises(errors.Refused, match="does not stand before it"):
            bench.one(SubmitAll((bench.new(), bench.new(after_new=places))))
    with pytest.raises(errors.Refused, match="in a request of one task"):
        bench.submit(after_new=(0,))
    assert bench.ready() == []

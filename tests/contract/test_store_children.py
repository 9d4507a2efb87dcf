"""Children: kept by their names, submitted once, and reached by a cancel of their parent."""

from __future__ import annotations

from typing import Any

import pytest

from taskd import errors
from taskd.model.retention import Ages
from taskd.model.task import ENDED, Budgets, State
from taskd.store.api import Cancel, GoOn, Purge, Retry, Settle
from taskd.store.queries import Expired
from taskd.store.submit_api import Parent


def child(bench: Any, parent: int, name: str, **fields: Any) -> Any:
    attempt = bench.row(parent).attempt
    is_detached = fields.pop("detached", False)
    return bench.one(bench.new(parent=Parent(parent, attempt, name, is_detached), **fields))


def running(bench: Any, **fields: Any) -> int:
    task = int(bench.submit(**fields))
    bench.claim(task)
    return task


def cancelled(bench: Any, task: int) -> tuple[list[int], list[int]]:
    """Those that were asked to leave, and those that changed, when this task ended by a wish."""
    bench.cancel(task)
    attempt = bench.row(task).attempt
    (applied,) = bench.apply(Settle(task, attempt, State.QUEUED, bench.now, Budgets()))
    asked, changed = list(applied.asked), list(applied.also)
    while bench.reader.due() == 0:
        (applied,) = bench.apply(GoOn(60))
        asked += applied.asked
        changed += (*applied.result, *applied.also)
    return asked, changed


def test_a_parent_that_runs_again_finds_its_child_by_name(bench: Any) -> None:
    parent = running(bench)
    first = child(bench, parent, "a")
    other = child(bench, parent, "b")
    assert first.created
    assert other.task != first.task
    bench.settle(parent, State.QUEUED)
    bench.claim(parent)
    again = child(bench, parent, "a", args=b"\xa1apathb/y")
    assert (again.task, again.created) == (first.task, False)
    assert bench.row(first.task).parent == parent
    bench.reopen()
    assert child(bench, parent, "b").task == other.task


def test_only_the_attempt_that_runs_may_submit_one(bench: Any) -> None:
    parent = running(bench)
    bench.settle(parent, State.QUEUED)
    with pytest.raises(errors.Refused, match=r"attempt 1 of task .* is over"):
        child(bench, parent, "a")
    bench.claim(parent)
    with pytest.raises(errors.Refused, match=r"attempt 1 of task .* is over"):
        bench.one(bench.new(parent=Parent(parent, 1, "a")))
    bench.cancel(parent)
    with pytest.raises(errors.Refused, match="is to be cancelled"):
        child(bench, parent, "a")
    for unknown, owner in ((999, 1000), (parent, 7)):
        with pytest.raises(errors.UnknownTask):
            bench.one(bench.new(owner=owner, parent=Parent(unknown, 2, "a")))


def test_a_cancel_goes_down_to_any_depth(bench: Any) -> None:
    parent = running(bench)
    waits = child(bench, parent, "waits").task
    runs = child(bench, parent, "runs").task
    later = child(bench, parent, "later", delay=900.0).task
    over = child(bench, parent, "over").task
    free = child(bench, parent, "free", detached=True).task
    for task in (runs, over):
        bench.claim(task)
    below = child(bench, runs, "below").task
    bench.settle(over, State.SUCCEEDED, result=b"\xf6")
    asked, changed = cancelled(bench, parent)
    assert asked == [runs]
    assert {waits, later} <= set(changed)
    row = bench.row(waits)
    assert (row.state, row.reason) == (
        State.CANCELLED,
        f"its parent, task {parent}, was cancelled",
    )
    assert bench.row(later).state is State.CANCELLED
    assert bench.row(runs).cancel_wished
    assert bench.row(over).state is State.SUCCEEDED
    assert bench.row(free).state is State.QUEUED
    assert bench.row(below).state is State.QUEUED
    bench.settle(runs, State.QUEUED)
    assert bench.row(runs).state is State.CANCELLED
    assert bench.row(below).state is State.CANCELLED


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.FAILED, State.HELD])
def test_no_other_end_of_the_parent_touches_them(bench: Any, state: State) -> None:
    parent = running(bench)
    task = child(bench, parent, "a").task
    bench.settle(parent, state, result=b"\xf6" if state is State.SUCCEEDED else None)
    assert bench.row(task).state is State.QUEUED
    assert bench.reader.due() is None


def test_many_are_cancelled_in_slices_that_outlast_a_closing(bench: Any) -> None:
    parent = running(bench)
    tasks = [child(bench, parent, str(n)).task for n in range(230)]
    bench.cancel(parent)
    bench.settle(parent, State.QUEUED)
    assert sum(bench.row(task).state is State.CANCELLED for task in tasks) == 100
    while bench.reader.due() == 0:
        bench.reopen()
        bench.one(GoOn(60))
    assert {bench.row(task).state for task in tasks} == {State.CANCELLED}


def test_one_that_its_key_has_found_is_left_alone_and_found_again(bench: Any) -> None:
    other = bench.submit(key="k")
    parent = running(bench)
    assert child(bench, parent, "a", key="k").task == other
    assert child(bench, parent, "a", key="k").task == other
    assert cancelled(bench, parent) == ([], [other])
    assert bench.row(other).state is State.QUEUED
    assert bench.row(other).parent is None


def test_a_retry_keeps_children_and_one_from_the_start_begins_anew(bench: Any) -> None:
    parent = running(bench)
    first = child(bench, parent, "a").task
    bench.settle(parent, State.FAILED)
    bench.retry(parent)
    bench.claim(parent)
    assert child(bench, parent, "a").task == first
    bench.settle(parent, State.FAILED)
    bench.one(Retry(parent, None, 1.0, start=True))
    bench.claim(parent)
    second = child(bench, parent, "a")
    assert second.created
    while bench.reader.due() == 0:
        bench.one(GoOn(60))
    assert bench.row(first).state is State.CANCELLED
    assert bench.row(second.task).state is State.QUEUED


def test_the_child_of_a_live_parent_is_not_purged(bench: Any) -> None:
    ages = Ages(dict.fromkeys(ENDED, 0.0), {})
    parent = running(bench)
    task = child(bench, parent, "a").task
    bench.ended(task, State.FAILED)
    bench.now += 10
    assert bench.reader.all(Expired(ages, 9)) == []
    assert bench.one(Purge((task,), None, 1 << 20)) == []
    bench.settle(parent, State.SUCCEEDED, result=b"\xf6")
    bench.now += 10
    assert bench.one(Purge((task, parent), None, 1 << 20)) == [task, parent]


def test_nobody_without_children_pays_for_them(bench: Any) -> None:
    task = bench.submit()
    (applied,) = bench.apply(Cancel(task, None, 1.0))
    assert (applied.also, applied.asked) == ((), ())

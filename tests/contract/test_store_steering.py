"""What is done to a task by hand: only in the state it was chosen in; moved, put off, redone."""

from __future__ import annotations

from typing import Any

import pytest

from taskd.errors import Meanwhile, Refused, UnknownTask
from taskd.model.task import State
from taskd.protocol import data
from taskd.protocol.saved import Kind, RawSaved, Saved
from taskd.store.api import Alter, Cancel, CancelExpired, Retry, Shift


def alter(bench: Any, task: int, **what: Any) -> State:
    found: State = bench.one(Alter(task, what.pop("owner", None), bench.now, **what))
    return found


@pytest.mark.parametrize("make", [Cancel, Retry, Alter])
def test_a_task_is_passed_over_that_is_in_another_state_than_it_was_chosen_in(
    bench: Any, make: Any
) -> None:
    task = bench.submit(priority=3)
    before = bench.row(task)
    what = {"priority": 9} if make is Alter else {}
    with pytest.raises(Meanwhile, match=rf"task {task} is queued by now"):
        bench.one(make(task, None, 1.0, only=State.HELD, **what))
    with pytest.raises(UnknownTask):
        bench.one(make(task, 7, 1.0, only=State.QUEUED, **what))
    assert bench.row(task) == before
    bench.one(Cancel(task, None, 1.0, only=State.QUEUED))
    assert bench.row(task).state is State.CANCELLED


def test_what_waits_is_moved_to_another_queue_and_priority(bench: Any) -> None:
    first, second = bench.submit(), bench.submit()
    held = bench.in_state(State.HELD)
    assert alter(bench, second, priority=5) is State.QUEUED
    assert bench.ready() == [second, first]
    assert alter(bench, first, queue="other") is State.QUEUED
    assert (bench.ready(), bench.ready("other")) == ([second], [first])
    assert alter(bench, held, queue="other", priority=1) is State.HELD
    assert bench.reader.counts() == {
        ("default", State.QUEUED): 1,
        ("other", State.QUEUED): 1,
        ("other", State.HELD): 1,
    }
    bench.retry(held)
    assert bench.ready("other") == [held, first]
    assert bench.claim(first) == 1
    with pytest.raises(Refused, match=r"is running: only one that waits"):
        alter(bench, first, priority=1)


def test_what_waits_is_put_off_and_taken_back(bench: Any) -> None:
    task = bench.submit()
    assert alter(bench, task, delay=50.0) is State.SCHEDULED
    row = bench.row(task)
    assert (row.run_at, bench.ready()) == (bench.now + 50, [])
    assert alter(bench, task, due=bench.now + 500) is State.SCHEDULED
    assert bench.one(Shift(7.0)) == 0  # a date that was named is a promise
    assert alter(bench, task, delay=0.0) is State.QUEUED
    assert (bench.row(task).run_at, bench.ready()) == (None, [task])
    states = [each.state.value for each in bench.reader.events((task,))]
    assert states == ["queued", "scheduled", "queued"]
    assert alter(bench, task, due=bench.now - 5) is State.QUEUED


def test_a_time_that_cannot_be_is_refused(bench: Any) -> None:
    task = bench.submit(expires=100.0)
    with pytest.raises(Refused, match="would expire before it is due"):
        alter(bench, task, delay=200.0)
    assert alter(bench, task, delay=50.0) is State.SCHEDULED
    bench.now += 200
    assert bench.one(CancelExpired(9)) == [task]
    held = bench.in_state(State.HELD)
    with pytest.raises(Refused, match="retry it"):
        alter(bench, held, delay=1.0)


def saved_state() -> bytes:
    """A step, a loop, a step."""
    saved = Saved(2)
    saved.apply(Kind.STEP, {"path": "count", "value": data.encode(3)})
    mark = {"cursor": data.encode(3), "done": 3, "finished": True}
    saved.apply(Kind.LOOP, {"path": "rows", "mark": mark})
    saved.apply(Kind.STEP, {"path": "rows/parse", "value": data.encode(1)})
    state = {"path": "publish", "value": data.encode("ok"), "state": data.encode({"n": 1})}
    saved.apply(Kind.STEP, state)
    return saved.encode()


@pytest.mark.parametrize(
    ("step", "left"),
    [
        ("publish", {"count", "rows", "rows/parse"}),
        ("rows", {"count"}),
        ("count", set()),
    ],
)
def test_a_retry_from_a_step_forgets_it_and_what_was_kept_after_it(
    bench: Any, step: str, left: set[str]
) -> None:
    task = bench.submit()
    bench.ended(task, State.FAILED, saved=saved_state(), saved_version=2)
    bench.one(Retry(task, None, 1.0, step=step))
    kept = RawSaved.decode(bench.reader.saved(task))
    assert {*kept.steps, *kept.cursors} == left
    assert data.decode(kept.state) == {"n": 1}
    assert (bench.row(task).state, bench.row(task).saved_version) == (State.QUEUED, 2)


def test_a_retry_from_a_step_that_is_not_there_changes_nothing(bench: Any) -> None:
    task = bench.submit()
    bench.ended(task, State.FAILED)
    with pytest.raises(Refused, match="has nothing saved"):
        bench.one(Retry(task, None, 1.0, step="rows"))
    bench.retry(task)
    bench.ended(task, State.FAILED, saved=saved_state(), saved_version=2)
    with pytest.raises(Refused, match="no step or loop 'parse' is saved; there are count, "):
        bench.one(Retry(task, None, 1.0, step="parse"))
    fields = data.decode(saved_state())
    del fields["order"]  # of 0.2
    bench.retry(task)
    bench.ended(task, State.FAILED, saved=data.encode(fields), saved_version=2)
    with pytest.raises(Refused, match="in which order"):
        bench.one(Retry(task, None, 1.0, step="count"))
    assert bench.row(task).state is State.FAILED


def test_a_retry_from_the_start_drops_what_was_saved(bench: Any) -> None:
    task = bench.submit()
    progress = {"done": 1, "total": 2, "note": ""}
    how = {"saved": saved_state(), "saved_version": 2, "progress": progress}
    bench.ended(task, State.HELD, **how)
    assert bench.reader.groups()[0].version == 2
    bench.one(Retry(task, None, 1.0, start=True))
    row = bench.row(task)
    assert (row.state, row.saved_version, row.progress) == (State.QUEUED, None, None)
    assert bench.reader.saved(task) is None
    (group,) = bench.reader.groups()
    assert (group.version, group.waiting) == (1, 1)

"""What every store must do with each operation on tasks that are there, from Take to Shift."""

from __future__ import annotations

from typing import Any

import pytest
from support import taking

from taskd import errors
from taskd.model.task import CHANGES, ENDED, Budgets, Change, State
from taskd.store.api import (
    Answer,
    Applied,
    Cancel,
    Cancelled,
    Ended,
    HoldKind,
    Settle,
    Shift,
)
from taskd.store.queries import Filter
from taskd.store.values import Kind, Taken

ERROR = {"type": "ValueError", "message": "no", "traceback": "…"}
KIND = ("default", Kind("index", None))
LIVE = [state for state in State if state not in ENDED]

# Take (which tasks: ``test_store_taking``)


def test_a_claim_starts_the_next_attempt_of_a_queued_task(bench: Any) -> None:
    task = bench.submit()
    (taken,) = bench.one(taking.claim(task, "r41", 50.0, worker=b"w" * 16))
    row = bench.row(task)
    assert (row.state, row.attempt, row.worker) == (State.RUNNING, 1, b"w" * 16)
    assert (row.revision, row.started) == ("r41", 50.0)
    assert taken == Taken(row, bench.reader.args(task), None)


def test_the_start_shown_is_that_of_the_first_attempt(bench: Any) -> None:
    task = bench.submit()
    bench.one(taking.claim(task, "r1", 50.0))
    bench.settle(task, State.QUEUED, reason="left for r2")
    assert (bench.row(task).reason, bench.row(task).worker) == ("left for r2", None)
    assert bench.one(taking.claim(task, "r2", 60.0))[0].row.attempt == 2
    assert (bench.row(task).started, bench.row(task).reason) == (50.0, None)


@pytest.mark.parametrize("state", [each for each in State if each is not State.QUEUED])
def test_a_task_that_is_not_queued_is_not_claimed(bench: Any, state: State) -> None:
    task = bench.in_state(state)
    before = bench.row(task)
    (applied,) = bench.apply(taking.claim(task, "r2", 99.0))
    assert (applied.result, applied.task) == ([], None)
    assert bench.row(task) == before


def test_an_unknown_task_is_not_claimed(bench: Any) -> None:
    assert bench.claim(17) is None


# Settle


def test_a_success_keeps_the_result_and_drops_the_saved_state(bench: Any) -> None:
    task = bench.submit()
    bench.ended(task, State.QUEUED, saved=b"half", saved_version=1)
    bench.claim(task)
    done = {"done": 3, "total": 3, "note": ""}
    end = {"result": b"42", "progress": done, "saved": b"more", "saved_version": 1}
    assert bench.settle(task, State.SUCCEEDED, **end) == Answer.RECORDED
    row = bench.row(task)
    assert (row.state, row.ended, row.saved_version) == (State.SUCCEEDED, bench.now - 1, None)
    assert (row.progress, row.worker) == (done, None)
    assert bench.reader.result(task) == b"42"
    assert bench.reader.saved(task) is None


def test_a_failure_keeps_the_error_and_the_saved_state(bench: Any) -> None:
    task = bench.submit()
    bench.ended(task, State.FAILED, error=ERROR, saved=b"half", saved_version=2, reason="it raised")
    row = bench.row(task)
    assert (row.state, row.error, row.reason) == (State.FAILED, ERROR, "it raised")
    assert (row.saved_version, bench.reader.saved(task)) == (2, b"half")
    assert row.ended is not None


@pytest.mark.parametrize("state", [State.QUEUED, State.SCHEDULED, State.HELD])
def test_an_attempt_that_does_not_end_the_task_replaces_budgets_and_reason(
    bench: Any, state: State
) -> None:
    task = bench.submit()
    bench.ended(task, state, budgets=Budgets(1, 2, 3), reason="why", delay=60.0, error=ERROR)
    run_at = bench.now + 60 if state is State.SCHEDULED else None
    row = bench.row(task)
    assert (row.state, row.budgets, row.reason) == (state, Budgets(1, 2, 3), "why")
    assert (row.run_at, row.error, row.ended) == (run_at, ERROR, None)


@pytest.mark.parametrize(
    ("saved", "kept", "version"), [(None, b"old", 4), (b"new", b"new", 5), (b"", None, None)]
)
def test_saved_state_is_left_replaced_or_dropped(
    bench: Any, saved: bytes | None, kept: bytes | None, version: int | None
) -> None:
    task = bench.submit()
    bench.ended(task, State.QUEUED, saved=b"old", saved_version=4)
    bench.ended(task, State.QUEUED, saved=saved, saved_version=5 if saved else None)
    assert (bench.reader.saved(task), bench.row(task).saved_version) == (kept, version)


def test_saved_state_without_a_version_has_that_of_the_submission(bench: Any) -> None:
    task = bench.submit(version=6)
    bench.ended(task, State.QUEUED, saved=b"x")
    assert bench.row(task).saved_version == 6


def test_progress_stays_where_an_end_brings_none(bench: Any) -> None:
    task = bench.submit()
    bench.ended(task, State.QUEUED, progress={"done": 1, "total": None, "note": "n"})
    bench.ended(task, State.QUEUED)
    assert bench.row(task).progress == {"done": 1, "total": None, "note": "n"}


def test_an_end_without_an_error_or_a_reason_clears_the_last_one(bench: Any) -> None:
    task = bench.submit()
    bench.ended(task, State.QUEUED, error=ERROR, reason="it raised")
    bench.ended(task, State.QUEUED)
    assert (bench.row(task).error, bench.row(task).reason) == (None, None)


def test_the_same_end_again_is_already_recorded_and_changes_nothing(bench: Any) -> None:
    task = bench.submit()
    bench.ended(task, State.SUCCEEDED, result=b"1")
    before = bench.row(task)
    assert bench.settle(task, State.FAILED, attempt=1, error=ERROR) == Answer.ALREADY
    assert (bench.row(task), bench.reader.result(task)) == (before, b"1")


def test_an_end_of_an_attempt_that_was_requeued_is_already_recorded(bench: Any) -> None:
    task = bench.submit()
    bench.ended(task, State.QUEUED)
    assert bench.settle(task, State.SUCCEEDED, attempt=1) == Answer.ALREADY
    assert bench.row(task).state is State.QUEUED


def test_an_end_of_an_earlier_attempt_is_superseded(bench: Any) -> None:
    task = bench.submit()
    bench.ended(task, State.QUEUED)
    bench.claim(task)
    assert bench.settle(task, State.SUCCEEDED, attempt=1, result=b"stale") == Answer.SUPERSEDED
    assert (bench.row(task).state, bench.reader.result(task)) == (State.RUNNING, None)


@pytest.mark.parametrize("attempt", [0, 1, 7])
def test_an_end_of_an_attempt_that_the_store_does_not_know_is_superseded(
    bench: Any, attempt: int
) -> None:
    assert bench.settle(99, State.FAILED, attempt=attempt) == Answer.SUPERSEDED
    task = bench.submit()
    bench.claim(task)
    if attempt != 1:
        assert bench.settle(task, State.FAILED, attempt=attempt) == Answer.SUPERSEDED
    assert bench.row(task).state is State.RUNNING


def test_a_stale_end_writes_no_event(bench: Any) -> None:
    task = bench.submit()
    bench.ended(task, State.SUCCEEDED)
    before = bench.reader.events([task], 0, 99)
    (applied,) = bench.apply(Settle(task, 1, State.FAILED, 9.0, Budgets()))
    assert (applied.task, bench.reader.events([task], 0, 99)) == (None, before)


@pytest.mark.parametrize(
    "bug",
    [
        {"state": State.RUNNING},
        {"state": State.SCHEDULED},
        {"state": State.SCHEDULED, "delay": float("nan")},
    ],
)
def test_an_end_that_cannot_be_is_a_bug_and_undoes_its_whole_batch(
    bench: Any, bug: dict[str, Any]
) -> None:
    task = bench.submit()
    bench.claim(task)
    end = Settle(task, 1, State.FAILED, 9.0, Budgets())._replace(**bug)
    with pytest.raises(ValueError):
        bench.apply(bench.new(), end)
    assert [row.id for row in bench.reader.tasks(Filter())] == [task]
    assert bench.one(end._replace(attempt=2)) == Answer.SUPERSEDED, "it is not looked at"
    assert bench.settle(task, State.SUCCEEDED) == Answer.RECORDED


# Cancel


@pytest.mark.parametrize("state", [State.QUEUED, State.SCHEDULED, State.HELD])
def test_a_waiting_task_is_cancelled_at_once(bench: Any, state: State) -> None:
    task = bench.in_state(state)
    assert bench.cancel(task) == Cancelled(State.CANCELLED, state)
    row = bench.row(task)
    assert (row.state, row.ended, row.run_at) == (State.CANCELLED, bench.now - 1, None)
    assert row.reason is None


def test_a_running_task_gets_the_wish(bench: Any) -> None:
    task = bench.submit()
    bench.claim(task)
    events = bench.reader.events([task], 0, 99)
    (applied,) = bench.apply(Cancel(task, None, 1.0))
    assert applied == Applied(Cancelled(State.RUNNING, State.RUNNING), None)
    bench.reopen()
    assert (bench.row(task).state, bench.row(task).cancel_wished) == (State.RUNNING, True)
    assert bench.reader.events([task], 0, 99) == events


@pytest.mark.parametrize("state", sorted(ENDED))
def test_cancelling_an_ended_task_changes_nothing_and_succeeds(bench: Any, state: State) -> None:
    task = bench.in_state(state)
    before = bench.row(task), bench.reader.events([task], 0, 99)
    assert bench.cancel(task) == Cancelled(state, state)
    assert (bench.row(task), bench.reader.events([task], 0, 99)) == before


@pytest.mark.parametrize(
    "state", [State.QUEUED, State.SCHEDULED, State.HELD, State.FAILED, State.CANCELLED]
)
def test_after_the_wish_any_end_but_a_success_is_cancelled(bench: Any, state: State) -> None:
    task = bench.submit(key="k")
    bench.claim(task)
    bench.cancel(task)
    ends = {"delay": 9e9, "saved": b"s", "saved_version": 1}
    why = {"reason": "as it was", "if_cancelled": "as it is"}
    (applied,) = bench.apply(Settle(task, 1, state, bench.now, Budgets(), **ends, **why))
    row = bench.row(task)
    requeued = state in (State.QUEUED, State.SCHEDULED, State.HELD)
    assert row.reason == ("as it is" if requeued else "as it was")
    assert applied == Applied(Answer.RECORDED, task, Ended(State.CANCELLED, row.reason))
    assert (row.state, row.run_at, row.ended) == (State.CANCELLED, None, bench.now - 1)
    assert bench.reader.saved(task) == b"s"
    assert bench.reader.events([task], 0, 99)[-1].state is State.CANCELLED
    assert bench.one(bench.new(key="k")).created


def test_after_the_wish_a_success_wins(bench: Any) -> None:
    task = bench.submit()
    bench.claim(task)
    bench.cancel(task)
    bench.settle(task, State.SUCCEEDED, result=b"1")
    assert (bench.row(task).state, bench.reader.result(task)) == (State.SUCCEEDED, b"1")
    assert bench.row(task).cancel_wished, "it stays until a retry"


@pytest.mark.parametrize("number", [0, -1, 17, 1 << 63, 1 << 200])
def test_cancel_and_retry_of_an_unknown_task_say_so(bench: Any, number: int) -> None:
    bench.submit()
    for ask in (bench.cancel, bench.retry):
        with pytest.raises(errors.UnknownTask, match=f"^no task {number}$"):
            ask(number)


def test_anothers_task_answers_as_unknown_but_not_to_an_operator(bench: Any) -> None:
    task = bench.submit(owner=1)
    for ask in (bench.cancel, bench.retry):
        with pytest.raises(errors.UnknownTask, match=f"^no task {task}$"):
            ask(task, owner=2)
    assert bench.cancel(task, owner=1).state is State.CANCELLED
    assert bench.retry(task, owner=None) is State.QUEUED


# Retry


@pytest.mark.parametrize("state", [State.HELD, State.FAILED, State.CANCELLED])
def test_a_retry_queues_again_with_fresh_budgets_and_the_saved_state(
    bench: Any, state: State
) -> None:
    task = bench.submit()
    bench.claim(task)
    if state is State.CANCELLED:
        bench.cancel(task)
    bench.settle(
        task,
        state,
        budgets=Budgets(1, 2, 3),
        error=ERROR,
        reason="why",
        saved=b"s",
        saved_version=2,
    )
    assert bench.retry(task) is State.QUEUED
    row = bench.row(task)
    assert (row.state, row.budgets, row.cancel_wished) == (State.QUEUED, Budgets(), False)
    assert (row.error, row.reason, row.ended) == (None, None, None)
    assert (row.saved_version, bench.reader.saved(task)) == (2, b"s")
    assert bench.claim(task) == 2


@pytest.mark.parametrize("state", [each for each in State if (each, Change.RETRY) not in CHANGES])
def test_a_retry_of_any_other_state_is_refused_and_names_it(bench: Any, state: State) -> None:
    task = bench.in_state(state)
    with pytest.raises(errors.Refused, match=f"task {task} is {state.value}"):
        bench.retry(task)


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED])
def test_a_retry_whose_key_another_task_has_taken_is_refused(bench: Any, state: State) -> None:
    task = bench.in_state(state, key="k")
    other = bench.submit(key="k")
    with pytest.raises(errors.KeyConflict, match=f"task {other}, which is queued"):
        bench.retry(task)
    assert bench.row(task).state is state
    bench.cancel(other)
    assert bench.retry(task) is State.QUEUED


def test_a_held_task_still_has_its_key_and_can_be_retried(bench: Any) -> None:
    task = bench.in_state(State.HELD, key="k")
    assert bench.retry(task) is State.QUEUED


# HoldKind and wake


def test_a_queued_task_is_held_with_its_reason(bench: Any) -> None:
    task = bench.submit()
    assert bench.one(HoldKind(*KIND, "no revision knows it", 9, 3.0)) == [task]
    row = bench.row(task)
    assert (row.state, row.reason, row.ended) == (State.HELD, "no revision knows it", None)


@pytest.mark.parametrize("state", [each for each in State if each is not State.QUEUED])
def test_only_a_queued_task_is_held(bench: Any, state: State) -> None:
    task = bench.in_state(state)
    before = bench.row(task)
    assert bench.one(HoldKind(*KIND, "why", 9, 3.0)) == []
    assert bench.row(task) == before


def test_due_tasks_are_woken_the_longest_due_first_and_up_to_the_limit(bench: Any) -> None:
    late, early, middle = (bench.submit(delay=delay) for delay in (30.0, 10.0, 20.0))
    assert bench.wake(10, after=5.0) == []
    assert bench.wake(2, after=30.0) == [early, middle]
    assert bench.row(late).state is State.SCHEDULED
    assert (bench.row(early).state, bench.row(early).run_at) == (State.QUEUED, None)
    assert bench.wake(2, after=1.0) == [late]


# Shift


def test_a_shift_moves_the_time_of_what_is_scheduled_and_nothing_else(bench: Any) -> None:
    early, late = bench.submit(delay=1000.0), bench.submit(delay=4000.0)
    due = {task: bench.row(task).run_at for task in (early, late)}
    queued = bench.submit()
    before = bench.row(queued)
    assert bench.one(Shift(-1005.0)) == 2
    assert all(bench.row(task).run_at == at - 1005 for task, at in due.items())
    assert bench.row(queued) == before
    assert bench.reader.due() == 0.0
    assert [event.state for event in bench.reader.events([early], 0, 9)] == [State.SCHEDULED]
    assert bench.wake(9, after=1.0) == [early]
    assert bench.one(Shift(1.0)) == 1
    assert bench.row(late).run_at == due[late] - 1004


def test_a_date_that_was_named_is_a_promise_until_the_task_waits_for_another(bench: Any) -> None:
    named, delayed = bench.submit(due=bench.now + 100), bench.submit(delay=50.0)
    promised = bench.row(named).run_at
    assert bench.one(Shift(-10.0)) == 1
    assert bench.row(named).run_at == promised
    assert bench.wake(9, after=60.0) == [delayed]
    assert bench.wake(9, after=60.0) == [named]
    bench.claim(named)
    bench.settle(named, State.SCHEDULED, delay=500.0)
    again = bench.row(named).run_at
    assert bench.one(Shift(-10.0)) == 1, "a retry waits for so long, whatever the clock says"
    assert bench.row(named).run_at == again - 10


def test_a_date_that_has_come_makes_a_task_ready(bench: Any) -> None:
    for due in (0.0, bench.now, bench.now + 1):  # the store's clock goes on by 1
        task = bench.row(bench.submit(due=due))
        assert (task.state, task.run_at) == (State.QUEUED, None)

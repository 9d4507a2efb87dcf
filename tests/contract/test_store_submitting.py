"""What every store must do with new tasks: Submit and SubmitAll (shares: ``test_store_shares``)."""

from __future__ import annotations

from typing import Any

import pytest

from taskd import errors
from taskd.model.task import ENDED, Budgets, OnDeploy, State
from taskd.store.api import (
    SubmitAll,
    Submitted,
)
from taskd.store.queries import Filter
from taskd.store.values import Kind

ERROR = {"type": "ValueError", "message": "no", "traceback": "…"}
KIND = ("default", Kind("index", None))
LIVE = [state for state in State if state not in ENDED]


def test_a_new_task_is_queued_with_what_was_submitted(bench: Any) -> None:
    task = bench.submit(
        owner=7, name="import", version=3, args=b"args", queue="imports", priority=-2,
        key="k", retries=5, on_deploy=OnDeploy.CHECKPOINT, at=12.5,
    )  # fmt: skip
    row = bench.row(task)
    assert (row.id, row.owner, row.name, row.version, row.queue) == (
        task,
        7,
        "import",
        3,
        "imports",
    )
    assert (row.priority, row.state, row.attempt, row.key) == (-2, State.QUEUED, 0, "k")
    assert (row.retries_allowed, row.retries_said) == (5, None)
    assert (row.on_deploy, row.submitted) == (OnDeploy.CHECKPOINT, 12.5)
    assert (row.run_at, row.started, row.ended, row.worker, row.revision) == (None,) * 5
    assert (row.saved_version, row.reason, row.error, row.progress) == (None,) * 4
    assert (row.cancel_wished, row.budgets) == (False, Budgets())
    assert bench.reader.args(task) == b"args"
    assert bench.reader.saved(task) is None
    assert bench.reader.result(task) is None


@pytest.mark.parametrize("said", [0, 9])
def test_retries_that_were_said_at_submission_are_told_apart_from_those_of_the_code(
    bench: Any, said: int
) -> None:
    """0.2 knows no others than those that are allowed."""
    row = bench.row(bench.submit(retries=5, retries_said=said))
    assert (row.retries_allowed, row.retries_said) == (said, said)


def test_a_delay_makes_a_task_scheduled_by_the_clock_of_the_store(bench: Any) -> None:
    task = bench.submit(at=10.0, delay=20.0)
    assert (bench.row(task).state, bench.row(task).run_at) == (State.SCHEDULED, bench.now + 20)


@pytest.mark.parametrize("delay", [None, 0.0, -5.0, float("nan")])
def test_no_delay_makes_a_task_queued(bench: Any, delay: float | None) -> None:
    task = bench.submit(at=10.0, delay=delay)
    assert (bench.row(task).state, bench.row(task).run_at) == (State.QUEUED, None)


def test_the_same_submission_again_returns_the_same_task_once(bench: Any) -> None:
    new = bench.new()
    first, second = bench.apply(new, new)
    assert first.result == Submitted(first.result.task, True)
    assert second.result == Submitted(first.result.task, False)
    assert second.task is None
    assert len(bench.reader.events([first.result.task], 0, 9)) == 1


def test_a_known_submission_is_answered_whatever_else_it_says(bench: Any) -> None:
    new = bench.new(key="one")
    task, other = bench.one(new).task, bench.submit(key="two")
    before = bench.row(task), bench.row(other)
    for fields in ({"name": "x"}, {"key": "two"}, {"key": "new"}, {"args": b"", "queue": "q"}):
        assert bench.one(new._replace(**fields)) == Submitted(task, False)
    assert (bench.row(task), bench.row(other)) == before
    assert bench.one(bench.new(key="new")).created, "nothing of it was kept"


def test_a_submission_stays_known_after_its_task_ended(bench: Any) -> None:
    new = bench.new()
    task = bench.one(new).task
    bench.ended(task, State.SUCCEEDED)
    bench.reopen()
    assert bench.one(new) == Submitted(task, False)


def test_another_owners_submission_id_is_refused(bench: Any) -> None:
    new = bench.new(owner=1)
    bench.one(new)
    with pytest.raises(errors.Refused, match="another user's"):
        bench.one(new._replace(owner=2))


@pytest.mark.parametrize("state", LIVE)
def test_a_key_finds_its_task_while_that_lives(bench: Any, state: State) -> None:
    task = bench.in_state(state, key="k")
    assert bench.one(bench.new(key="k")) == Submitted(task, False)


@pytest.mark.parametrize("state", sorted(ENDED))
def test_a_key_is_free_once_its_task_has_ended(bench: Any, state: State) -> None:
    task = bench.in_state(state, key="k")
    again = bench.one(bench.new(key="k"))
    assert again.created and again.task != task


def test_a_submission_that_a_key_answered_keeps_its_answer_after_that_task_ended(
    bench: Any,
) -> None:
    task = bench.submit(key="k")
    second = bench.new(key="k")
    bench.one(second)
    bench.ended(task, State.SUCCEEDED)
    assert bench.one(second) == Submitted(task, False)


def test_the_empty_string_is_a_key(bench: Any) -> None:
    task = bench.submit(key="")
    assert bench.one(bench.new(key="")) == Submitted(task, False)
    assert bench.one(bench.new(key=None)).created


def test_two_owners_may_use_the_same_key(bench: Any) -> None:
    assert bench.submit(key="k", owner=1) != bench.submit(key="k", owner=2)


@pytest.mark.parametrize("other", [{"name": "export"}, {"args": b"\xa1apathb/y"}])
def test_a_key_with_another_name_or_args_is_a_conflict_that_names_the_task(
    bench: Any, other: dict[str, Any]
) -> None:
    task = bench.submit(key="k")
    with pytest.raises(errors.KeyConflict, match=f"task {task} "):
        bench.one(bench.new(key="k", **other))


def test_a_key_finds_its_task_whatever_is_neither_name_nor_args(bench: Any) -> None:
    task = bench.submit(key="k")
    before = bench.row(task)
    other = {"queue": "q", "priority": 7, "version": 9, "shape": "z", "delay": 5.0, "retries": 3}
    assert bench.one(bench.new(key="k", **other)) == Submitted(task, False)
    assert bench.row(task) == before


def test_a_refused_operation_harms_no_other_of_its_batch(bench: Any) -> None:
    bench.submit(key="k")
    first, refused, last = bench.apply(
        bench.new(), bench.new(key="k", args=b"other"), bench.new(name="export")
    )
    assert isinstance(refused.result, errors.KeyConflict)
    assert refused.task is None
    assert bench.row(first.result.task).name == "index"
    assert bench.row(last.result.task).name == "export"
    assert bench.reader.counts() == {("default", State.QUEUED): 3}


@pytest.mark.parametrize(
    "field", [{"priority": 1 << 63}, {"version": 1 << 63}, {"name": "\ud800"}, {"key": "\ud800"}]
)
def test_what_cannot_be_stored_is_refused_and_leaves_nothing(
    bench: Any, field: dict[str, Any]
) -> None:
    refused, good = bench.apply(bench.new(**field), bench.new())
    assert isinstance(refused.result, errors.Refused)
    assert [row.id for row in bench.reader.tasks(Filter())] == [good.result.task]
    assert [group.waiting for group in bench.reader.groups()] == [1]


def test_several_tasks_of_one_request_are_accepted_together(bench: Any) -> None:
    same = bench.new()
    result = bench.one(SubmitAll((same, bench.new(), same)))
    assert [each.created for each in result] == [True, True, False]
    assert result[0].task == result[2].task
    assert bench.reader.counts() == {("default", State.QUEUED): 2}


def test_a_task_finds_the_key_of_one_before_it_in_the_same_request(bench: Any) -> None:
    first, second = bench.one(SubmitAll((bench.new(key="k"), bench.new(key="k"))))
    assert (second.task, second.created) == (first.task, False)
    other = SubmitAll((bench.new(key="l"), bench.new(key="l", name="other")))
    assert isinstance(bench.apply(other)[0].result, errors.KeyConflict)
    assert all(bench.one(new).created for new in other.tasks[:1]), "nothing of it was kept"


def test_several_tasks_of_one_request_are_refused_together(bench: Any) -> None:
    kept = bench.submit(key="k", name="other")
    before, refused, behind = bench.apply(
        bench.new(queue="before"),
        SubmitAll((bench.new(queue="a", shape="new,shape"), bench.new(key="k"))),
        bench.new(queue="behind", shape="new,shape"),
    )
    assert isinstance(refused.result, errors.KeyConflict)
    ids = [behind.result.task, before.result.task, kept]
    assert [row.id for row in bench.reader.tasks(Filter())] == ids
    assert {queue for queue, _ in bench.reader.counts()} == {"default", "before", "behind"}
    assert {(group.name, group.shape, group.waiting) for group in bench.reader.groups()} == {
        ("index", "path", 1),
        ("index", "new,shape", 1),
        ("other", "path", 1),
    }

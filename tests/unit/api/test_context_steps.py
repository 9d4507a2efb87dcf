"""Steps: kept by name, durably, once."""

from __future__ import annotations

from typing import Any

import pytest
from attempts import attempt, outcome, result

from taskd import Context, NotPlainData
from taskd.protocol import data
from taskd.protocol.saved import Saved
from taskd.worker.memory_recorder import MemoryRecorder


def test_a_step_is_durable_before_its_result_is_returned() -> None:
    recorder = MemoryRecorder()
    seen: list[list[bool]] = []

    def job(ctx: Context) -> int:
        value = ctx.step("count", lambda: 5)
        seen.append([record.durable for record in recorder.records])
        return value

    assert result(attempt(job, recorder=recorder)) == 5
    assert seen == [[True]]


def test_what_a_step_returns_is_what_was_read_back_the_first_time_too() -> None:
    original = [1, (2, 3)]

    def job(ctx: Context) -> bool:
        first = ctx.step("a", lambda: original)
        first.append("changed by the task")
        return first is not original and type(first[1]) is tuple

    ending = attempt(job)
    assert result(ending) is True
    assert original == [1, (2, 3)]
    assert ending.saved.steps == {"a": [1, (2, 3)]}


def test_a_kept_step_is_not_run_again_and_its_result_may_be_changed() -> None:
    saved = Saved(1)
    saved.steps["a"] = [1]

    def job(ctx: Context) -> list[int]:
        ctx.step("a", pytest.fail).append(2)
        return ctx.step("b", list)

    ending = attempt(job, saved=saved)
    assert result(ending) == []
    assert ending.saved.steps == {"a": [1], "b": []}


def test_a_step_passes_its_arguments_on_whatever_they_are_called() -> None:
    def job(ctx: Context) -> dict[str, int]:
        return ctx.step("a", dict, name=1, fn=2, self=3)

    assert outcome(job) == {"name": 1, "fn": 2, "self": 3}


def test_a_step_within_a_step_is_an_error() -> None:
    def job(ctx: Context) -> None:
        ctx.step("outer", lambda: ctx.step("inner", int))

    with pytest.raises(RuntimeError, match="step 'inner' within step 'outer'"):
        outcome(job)


@pytest.mark.parametrize(
    "inner",
    [
        lambda ctx: ctx.each("rows", [1]),
        lambda ctx: ctx.checkpoint(),
        lambda ctx: ctx.sleep(1, "nap"),
    ],
)
def test_nothing_else_that_saves_may_be_within_a_step(inner: Any) -> None:
    def job(ctx: Context) -> None:
        ctx.step("outer", inner, ctx)

    with pytest.raises(RuntimeError, match="within step 'outer'"):
        outcome(job)


def test_a_step_that_raised_may_be_tried_again_under_its_name() -> None:
    tries: list[int] = []

    def flaky() -> int:
        tries.append(1)
        if len(tries) < 3:
            raise OSError("not yet")
        return len(tries)

    def job(ctx: Context) -> int:
        while True:
            try:
                return ctx.step("fetch", flaky)
            except OSError:
                continue

    assert outcome(job) == 3


def test_the_same_name_twice_is_an_error_also_when_the_first_was_kept() -> None:
    saved = Saved(1)
    saved.steps["a"] = 1

    def job(ctx: Context) -> None:
        ctx.step("a", int)
        ctx.step("a", int)

    for start in (None, saved):
        with pytest.raises(RuntimeError, match="step 'a': that name is used twice"):
            outcome(job, saved=start)


def test_the_result_of_a_call_instead_of_a_function_is_told() -> None:
    def job(ctx: Context) -> None:
        ctx.step("count", len([1]))  # type: ignore[arg-type]

    with pytest.raises(TypeError, match="pass the function and its arguments apart"):
        outcome(job)


def test_an_async_function_in_a_sync_task_is_told() -> None:
    async def fetch() -> int:
        return 1

    def job(ctx: Context) -> None:
        ctx.step("fetch", fetch)

    with pytest.raises(TypeError, match="make the task's function async def"):
        outcome(job)


def test_a_result_that_cannot_be_kept_is_told_by_the_steps_name() -> None:
    for value, says in ((object(), "step 'a'"), (b"x" * (data.RESULT_LIMIT + 1), "limit")):
        with pytest.raises(NotPlainData, match=says):
            outcome(lambda ctx, value=value: ctx.step("a", lambda: value), name="job")

"""How an attempt ends, whatever the task's code does."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Any

import pytest
from attempts import attempt, result

from taskd import AsyncContext, Context, Interrupted
from taskd.protocol import data
from taskd.protocol.saved import Mark, Outcome, Saved
from taskd.worker.failure import MESSAGE_LIMIT, TRACEBACK_LIMIT
from taskd.worker.memory_recorder import MemoryRecorder


def error_of(fn: Any, **more: Any) -> dict[str, str]:
    ending = attempt(fn, **more)
    assert ending.outcome is Outcome.FAILED
    assert ending.error is not None
    assert ending.result is None
    return ending.error


def test_a_result_is_kept_as_plain_data() -> None:
    ending = attempt(lambda a, b=2: (a, b), {"a": {1}}, name="job")
    assert (ending.outcome, result(ending)) == (Outcome.SUCCEEDED, ({1}, 2))
    assert ending.progressed is False


def struck(times: int) -> Callable[[], None]:
    """Puts a task's signal handler out of the way, which strikes meanwhile."""
    left = iter(range(times))

    def calm() -> None:
        for number in left:
            raise KeyboardInterrupt(number)

    return calm


@pytest.mark.parametrize("times", [3, 1000])
def test_what_strikes_once_the_function_is_over_changes_nothing(times: int) -> None:
    async def later() -> int:
        return 1

    def fails() -> None:
        raise ValueError("its own")

    assert result(attempt(lambda: 1, calm=struck(times), name="job")) == 1
    assert result(attempt(later, calm=struck(times))) == 1
    assert error_of(fails, calm=struck(times))["message"] == "its own"


def test_an_exception_is_kept_with_its_type_text_and_the_tasks_own_frames() -> None:
    def deep() -> None:
        raise ValueError("no such region")

    def job(ctx: Context) -> None:
        for _ in ctx.each("rows", [1]):
            ctx.step("parse", deep)

    error = error_of(job)
    assert error["type"] == "ValueError"
    assert error["message"] == "no such region"
    assert error["traceback"].startswith("Traceback (most recent call last):")
    assert error["traceback"].endswith("ValueError: no such region\n")
    assert "in job" in error["traceback"]
    assert "in deep" in error["traceback"]
    assert "taskd/worker" not in error["traceback"] and "taskd/api" not in error["traceback"]


def test_frames_are_left_out_of_causes_and_groups_as_well() -> None:
    def job(ctx: Context) -> None:
        try:
            ctx.step("a", int, "x")
        except ValueError as error:
            raise ExceptionGroup("several", [KeyError("k"), error]) from error

    error = error_of(job)
    assert "invalid literal" in error["traceback"]
    assert "taskd/worker" not in error["traceback"] and "taskd/api" not in error["traceback"]


@pytest.mark.parametrize("after", ["returns", "raises"])
def test_what_ended_an_async_tasks_loop_is_how_it_ended(after: str) -> None:
    """Not what the task makes of the cancellation that asyncio sends it then."""

    async def leaves() -> None:
        sys.exit(3)

    async def job() -> str:
        other = asyncio.create_task(leaves())
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if after == "raises":
                raise KeyError("of no account") from None
        return f"partial: {other.done()}"

    assert error_of(job)["type"] == "SystemExit"


def test_an_async_tasks_traceback_begins_in_the_task() -> None:
    async def job() -> None:
        await asyncio.sleep(0)
        raise KeyError("k")

    lines = error_of(job)["traceback"].splitlines()
    assert "in job" in lines[1]


@pytest.mark.parametrize(
    ("leave", "message"),
    [
        (lambda: sys.exit(0), "the task's code called sys.exit(0)"),
        (lambda: sys.exit("why"), "the task's code called sys.exit('why')"),
        (lambda: (_ for _ in ()).throw(KeyboardInterrupt("ctrl-c")), "ctrl-c"),
        (lambda: (_ for _ in ()).throw(GeneratorExit()), ""),
    ],
)
def test_leaving_by_force_fails_the_task_and_not_the_worker(leave: Any, message: str) -> None:
    assert error_of(leave, name="job")["message"] == message

    async def later() -> None:
        leave()

    assert error_of(later)["message"] == message


def test_an_exception_whose_text_cannot_be_had_is_kept_all_the_same() -> None:
    class OddError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    def job() -> None:
        raise OddError

    error = error_of(job)
    assert "__str__ raised RuntimeError" in error["message"]
    assert error["type"].endswith("OddError")


def test_what_is_kept_of_an_error_is_bounded_and_valid_text() -> None:
    def job() -> None:
        raise ValueError("\ud800ä" * 200_000)

    error = error_of(job)
    assert len(error["message"].encode()) <= MESSAGE_LIMIT
    assert len(error["traceback"].encode()) <= TRACEBACK_LIMIT
    assert "(left out)" in error["traceback"]
    assert error["traceback"].startswith("Traceback")
    assert error["message"].startswith("\\ud800ä")


def test_endless_recursion_is_an_ordinary_failure() -> None:
    def job() -> None:
        job()

    assert error_of(job)["type"] == "RecursionError"


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (object(), "the result of task 'job'"),
        (b"x" * (data.RESULT_LIMIT + 1), "limit"),
    ],
)
def test_a_result_that_cannot_be_kept_fails_the_task(value: Any, says: str) -> None:
    error = error_of(lambda: value, name="job")
    assert error["type"] == "NotPlainData"
    assert says in error["message"]


def test_a_coroutine_as_a_result_is_told() -> None:
    async def inner() -> None: ...

    assert "async def itself" in error_of(lambda: inner(), name="job")["message"]


def test_progress_is_what_was_newly_saved() -> None:
    def job(ctx: Context) -> None:
        ctx.step("a", int)
        raise KeyError

    first = attempt(job)
    assert first.progressed is True
    assert attempt(job, saved=first.saved).progressed is False


def test_state_of_another_version_holds_the_task() -> None:
    saved = Saved(1)
    saved.steps["a"] = 1
    ending = attempt(lambda: None, saved=saved, version=2, name="job")
    assert ending.outcome is Outcome.HELD
    assert "of 'job' was saved by version 1, this code is version 2" in str(ending.reason)
    nothing_kept = attempt(lambda: None, saved=Saved(1), version=2, name="job")
    assert nothing_kept.outcome is Outcome.SUCCEEDED


def test_arguments_that_no_longer_bind_hold_the_task() -> None:
    ending = attempt(lambda path: None, {"pth": 1}, name="job")
    assert ending.outcome is Outcome.HELD
    assert "no longer bind: missing argument 'path'; unexpected argument 'pth'" in str(
        ending.reason
    )
    ending = attempt(lambda ctx, **more: None, {"ctx": 1}, name="job")
    assert ending.outcome is Outcome.HELD


def test_rewritten_arguments_go_before_those_submitted() -> None:
    saved = Saved(1)
    saved.args = {"path": "new"}
    assert result(attempt(lambda path: path, {"old": 1}, saved=saved, name="job")) == "new"


def test_a_wish_to_cancel_goes_before_an_earlier_one_to_leave() -> None:
    recorder = MemoryRecorder()
    recorder.ask("leave", "a deploy")

    def job(ctx: Context) -> None:
        try:
            ctx.checkpoint()
        finally:
            recorder.ask("cancel", "by the user")

    ending = attempt(job, recorder=recorder)
    assert (ending.outcome, ending.reason) == (Outcome.CANCELLED, "by the user")


def test_an_interrupt_in_a_task_group_is_an_interrupt() -> None:
    recorder = MemoryRecorder()
    recorder.ask()

    async def job(ctx: AsyncContext) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(ctx.checkpoint())

    assert attempt(job, recorder=recorder).outcome is Outcome.LEFT


def test_a_group_with_another_error_in_it_is_a_failure() -> None:
    def job() -> None:
        raise BaseExceptionGroup("both", [Interrupted("x"), KeyError("k")])

    assert "KeyError" in error_of(job)["traceback"]


def exit_status_of_child(body: Any) -> int:
    """What the child exits with that ``body`` forks within an attempt and leaves its task in."""
    recorder = MemoryRecorder()
    before = os.getpid()
    ending = attempt(body, recorder=recorder)
    assert os.getpid() == before
    return int(result(ending))


@pytest.mark.parametrize(("leave", "status"), [("return", 0), ("raise", 1), ("exit", 3)])
@pytest.mark.parametrize("is_async", [False, True])
def test_a_forked_child_that_leaves_the_task_is_gone_at_once(
    leave: str, status: int, is_async: bool
) -> None:
    def body() -> int:
        child = os.fork()
        if child == 0:
            if leave == "raise":
                raise KeyError("in the child")
            if leave == "exit":
                sys.exit(3)
            return -1
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    async def later() -> int:
        return body()

    assert exit_status_of_child(later if is_async else body) == status


def test_a_fork_in_an_async_task_does_not_harm_the_parents_loop() -> None:
    async def job(ctx: AsyncContext) -> list[int]:
        child = os.fork()
        if child == 0:
            return []
        os.waitpid(child, 0)
        return [await asyncio.to_thread(int, "5")]  # woken through the loop's own pipe

    assert result(attempt(job)) == [5]


def test_a_hold_keeps_what_is_saved() -> None:
    saved = Saved(1)
    saved.cursors["rows"] = Mark(5, 5, 9, 9, b"xxxxxxxx")
    ending = attempt(lambda ctx: list(ctx.each("rows", [1, 2])), saved=saved, name="job")
    assert (ending.outcome, ending.saved) == (Outcome.HELD, saved)

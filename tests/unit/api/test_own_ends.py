"""How a task ends its try by itself: to be tried again, failed for good, cancelled, put off."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from attempts import attempt

import taskd
from taskd import AsyncContext, Context, Interrupted
from taskd.protocol import records
from taskd.protocol.saved import Kind, Outcome
from taskd.worker.attempt import Ending
from taskd.worker.memory_recorder import MemoryRecorder


def ended(fn: Any, **more: Any) -> Ending:
    """As its END record would be, which the master checks."""
    ending = attempt(fn, **more)
    told = {"error": ending.error, "reason": ending.reason, "retry": ending.retry}
    end = {"task": 1, "attempt": 1, "outcome": ending.outcome.value, "progressed": False}
    end |= {"wake": ending.wake} if ending.wake is not None else {}
    records.check(Kind.END, end | {name: value for name, value in told.items() if value})
    return ending


def test_a_retry_is_a_failure_with_the_error_that_it_was_raised_over() -> None:
    def job(ctx: Context) -> None:
        try:
            raise ConnectionError("429")
        except Exception as error:
            raise ctx.retry(after=60) from error

    ending = ended(job, retries=3, retry_on=ValueError)
    assert ending.outcome is Outcome.FAILED
    assert ending.error is not None and ending.retry is not None
    assert (ending.error["type"], ending.error["message"]) == ("ConnectionError", "429")
    assert ending.retry["after"] == 60.0
    assert "final" not in ending.retry, "retry_on is not asked about what the task says itself"


def test_a_retry_without_an_error_is_one_itself() -> None:
    ending = ended(lambda ctx: ctx.retry(), name="job", backoff=lambda number: 5.0 * number)
    assert ending.error is not None and ending.retry is not None
    assert ending.error["type"] == "Retry"
    assert ending.error["message"] == "the task asked to be tried again"
    assert "after" not in ending.retry, "the backoff stands"
    said = ended(lambda ctx: ctx.retry(why="not there yet"), name="job")
    assert said.error is not None and said.error["message"] == "not there yet"


@pytest.mark.parametrize("raised", [taskd.Cancel, taskd.Fail, taskd.Retry])
def test_the_tasks_own_except_and_retry_on_do_not_take_it_for_an_error(raised: Any) -> None:
    def job() -> str:
        try:
            raise raised("so")
        except Exception:
            return "swallowed"

    ending = ended(job, retry_on=(), give_up_on=BaseException)
    assert ending.outcome is not Outcome.SUCCEEDED
    assert "give_up_on" not in str(ending.retry)


def test_a_task_that_is_put_off_sleeps_for_that_time() -> None:
    def job(ctx: Context) -> None:
        try:
            raise ConnectionError("429")
        except ConnectionError as error:
            ctx.retry(after=60, why=str(error), counts=False)

    recorder = MemoryRecorder()
    ending = ended(job, recorder=recorder)
    assert (ending.outcome, ending.wake) == (Outcome.SLEEPING, recorder.now + 60)
    assert ending.retry is not None and ending.retry["counts"] is False
    assert ending.reason == "429"


def test_a_task_can_fail_for_good() -> None:
    def over(ctx: Context) -> None:
        try:
            raise KeyError("customer 17")
        except KeyError:
            ctx.fail()

    def said(ctx: Context) -> None:
        ctx.fail("there is no customer 17")

    for fn, error in (
        (over, ("KeyError", "'customer 17'")),
        (said, ("Fail", "there is no customer 17")),
    ):
        ending = ended(fn, retries=5)
        assert ending.outcome is Outcome.FAILED
        assert ending.error is not None and ending.retry is not None
        assert (ending.error["type"], ending.error["message"]) == error
        assert ending.retry["final"] == "the task said so (ctx.fail)"


def test_a_task_can_cancel_itself() -> None:
    def job() -> None:
        raise taskd.Cancel("the customer is gone")

    def silent() -> None:
        raise taskd.Cancel

    ending = ended(job)
    assert (ending.outcome, ending.error) == (Outcome.CANCELLED, None)
    assert ending.reason == "cancelled by the task itself: the customer is gone"
    assert ended(silent).reason == "cancelled by the task itself"


def test_the_words_of_a_task_show_no_secret() -> None:
    def job(ctx: Context, token: taskd.Secret[str]) -> None:
        raise taskd.Cancel(f"no use for {token.reveal()}")

    ending = ended(job, args={"token": taskd.Secret("hunter2")})
    assert ending.reason is not None and "hunter2" not in ending.reason


def test_the_members_of_a_task_group_may_say_it_too() -> None:
    async def job(ctx: AsyncContext) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(gives_up(ctx))

    async def gives_up(ctx: AsyncContext) -> None:
        ctx.fail("no more")

    ending = ended(job)
    assert ending.retry is not None and "final" in ending.retry

    async def mixed(ctx: AsyncContext) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(gives_up(ctx))
            group.create_task(raises())

    async def raises() -> None:
        raise ValueError("beside it")

    ending = ended(mixed)
    assert (ending.outcome, ending.error and ending.error["type"]) == (
        Outcome.FAILED,
        "BaseExceptionGroup",
    )


def test_a_task_that_is_leaving_leaves_whatever_it_says_then() -> None:
    def job(ctx: Context) -> None:
        try:
            ctx.checkpoint()
        except Interrupted:
            ctx.retry(after=60)

    recorder = MemoryRecorder()
    recorder.ask("leave", "deploy")
    assert ended(job, recorder=recorder).outcome is Outcome.LEFT


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ({"after": -1}, ValueError),
        ({"after": float("nan")}, ValueError),
        ({"after": "60"}, TypeError),
        ({"after": True}, TypeError),
        ({"counts": False}, ValueError),
    ],
)
def test_a_wrong_retry_is_told_to_the_task(call: dict[str, Any], error: type) -> None:
    def job(ctx: Context) -> None:
        with pytest.raises(error):
            ctx.retry(**call)

    assert ended(job).outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize("after", [float("nan"), float("inf"), -5, "soon", 1e300])
@pytest.mark.parametrize("counts", [True, False])
def test_a_retry_that_no_context_has_made_cannot_make_an_end_that_no_master_reads(
    after: Any, counts: bool
) -> None:
    def job() -> None:
        raise taskd.Retry("mine", after, counts)

    ending = ended(job)
    assert ending.outcome is Outcome.FAILED
    assert ending.error is not None and "cannot be told" in ending.error["message"]


def test_another_thread_cannot_end_the_try() -> None:
    import threading

    def job(ctx: Context) -> list[str]:
        found: list[str] = []

        def other() -> None:
            try:
                ctx.fail("from beside it")
            except RuntimeError as error:
                found.append(str(error))

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        return found

    assert ended(job).outcome is Outcome.SUCCEEDED

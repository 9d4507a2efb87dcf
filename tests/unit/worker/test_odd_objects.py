"""Objects of the app's that raise when they are asked what they are: their task's failure."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from attempts import attempt, result

from taskd import Context, Interrupted, SavedState, Secret
from taskd.api.interrupt import Held, Sleeping
from taskd.protocol.saved import Outcome, Saved
from taskd.protocol.secret import SHOWN
from taskd.tasks import make_task
from taskd.worker.memory_recorder import MemoryRecorder
from taskd.worker.migrate import Unfit, fit


def error_of(fn: Any, **more: Any) -> dict[str, str]:
    ending = attempt(fn, **more)
    assert ending.outcome is Outcome.FAILED
    assert ending.error is not None
    return ending.error


class Liar:
    """Asked for its class, it raises."""

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # type: ignore[override]
        raise SystemExit("which class")

    def __repr__(self) -> str:
        raise KeyError("no text")


class LyingError(Liar, Exception):
    pass


class LyingHold(Liar, Held):
    @property
    def why(self) -> str:  # type: ignore[override]
        raise KeyError("no reason")

    @why.setter
    def why(self, why: str) -> None: ...


class LyingMap(Liar, dict[str, int]):
    def __iter__(self) -> Any:
        raise KeyError("no keys")

    keys = values = items = __iter__


@pytest.mark.parametrize("is_async", [False, True])
def test_an_exception_that_says_nothing_of_its_class_is_what_it_is(is_async: bool) -> None:
    def job() -> None:
        raise LyingError("why")

    async def later() -> None:
        raise LyingError("why")

    error = error_of(later if is_async else job)
    assert (error["type"], error["message"]) == ("LyingError", "why")
    assert "in later" if is_async else "in job" in error["traceback"]


def test_a_child_that_leaves_by_such_an_exception_is_gone_at_once() -> None:
    def body() -> int:
        child = os.fork()
        if child == 0:
            raise LyingError("in the child")
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert result(attempt(body)) == 1


@pytest.mark.parametrize("depth", [500, 20_000])
def test_a_group_however_deep_is_a_failure_that_says_where(depth: int) -> None:
    def job() -> None:
        error: Exception = ValueError("leaf")
        for _ in range(depth):
            error = ExceptionGroup("g", [error])
        raise error

    error = error_of(job)
    assert (error["type"], error["message"]) == ("ExceptionGroup", "g (1 sub-exception)")
    assert "in job" in error["traceback"]


def test_an_interrupt_in_groups_however_deep_is_an_interrupt() -> None:
    recorder = MemoryRecorder()
    recorder.ask()

    def job(ctx: Context) -> None:
        try:
            ctx.checkpoint()
        except Interrupted as interrupt:
            error: BaseException = interrupt
            for _ in range(5000):
                error = BaseExceptionGroup("g", [error])
            raise error from None

    assert attempt(job, recorder=recorder).outcome is Outcome.LEFT


@pytest.mark.parametrize(
    "make", [Liar, LyingMap, lambda: [LyingMap(a=1)], lambda: {"a": Liar()}, lambda: (Liar(), 1)]
)
def test_a_result_that_lies_about_its_class_cannot_be_kept(make: Any) -> None:
    assert error_of(lambda: make(), name="job")["type"] == "NotPlainData"


def test_what_raises_when_it_is_judged_is_the_tasks_failure() -> None:
    def job() -> None:
        raise LyingHold

    error = error_of(job)
    assert error["message"] == "how the task ended cannot be told: that raised KeyError"


@pytest.mark.parametrize("why", [object(), "\ud800", "x" * 1_000_000, 3])
def test_a_reason_that_is_no_text_is_made_one(why: Any) -> None:
    def job() -> None:
        raise Held(why)

    ending = attempt(job)
    assert ending.outcome is Outcome.HELD
    assert len(str(ending.reason).encode()) < 10_000


@pytest.mark.parametrize("wake", [object(), float("nan"), float("inf"), "soon"])
def test_a_time_to_wake_that_is_none_is_a_failure(wake: Any) -> None:
    def job() -> None:
        raise Sleeping(wake)

    assert "cannot be told" in error_of(job)["message"]


def test_secrets_are_looked_for_past_objects_that_lie() -> None:
    def job(ctx: Context, password: Secret[str]) -> None:
        ctx.state["odd"] = [Liar(), LyingMap(a=1)]
        raise ValueError(password.reveal())

    assert error_of(job, args={"password": Secret("hunter2")})["message"] == SHOWN


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda saved: Liar(), "returned Liar: it must return what it was given"),
        (lambda saved: saved.args.update({Liar(): 1}), "raised KeyError: 'no text'"),
        (lambda saved: saved.state.update(a=Liar()), "cannot be saved"),
    ],
)
def test_what_goes_wrong_in_looking_at_what_a_migration_left_is_told(
    change: Callable[[SavedState], Any], says: str
) -> None:
    task = make_task(lambda: None, name="job", version=2)
    task.migrate(1)(change)
    saved = Saved(1)
    saved.state = {"a": 1}
    with pytest.raises(Unfit, match=says):
        fit(task, {}, saved)


def test_a_task_may_change_the_arguments_that_a_migration_left() -> None:
    """What is saved stays as it is: an object that the task puts there could not be saved."""
    kept = Saved(1)
    kept.args = {"rows": [1]}
    start = fit(make_task(lambda rows: None, name="job"), {}, kept)
    start.args["rows"].append(object())
    assert start.saved.args == {"rows": [1]}

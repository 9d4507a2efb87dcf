"""The app's hooks around tasks and workers, as `testing.run` runs them; and what is no hook."""

from __future__ import annotations

import contextvars
import functools
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

import taskd
from taskd import Context, Secret, TaskEnd, TaskInfo, testing
from taskd.api import hooks
from taskd.worker import hooks as running

SEEN: list[Any] = []


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No hook outlives its test."""
    SEEN.clear()
    monkeypatch.setattr(hooks, "registered", {event: [] for event in hooks.registered})
    yield
    assert signal.getsignal(signal.SIGALRM) is not None


def note_all() -> None:
    taskd.on_worker_start(lambda: SEEN.append("worker starts"))
    taskd.on_worker_start(lambda: SEEN.append("and so on"))
    taskd.on_worker_stop(lambda: SEEN.append("worker stops"))
    taskd.on_worker_stop(lambda: SEEN.append("but first"))

    @taskd.on_task_start
    def starts(task: TaskInfo) -> None:
        SEEN.append(("starts", *task))

    @taskd.on_task_end
    def ends(task: TaskInfo, end: TaskEnd) -> None:
        SEEN.append(("ends", task.attempt, end.outcome, end.exception))


def add(a: int, b: int = 2) -> int:
    SEEN.append("runs")
    return a + b


def test_they_run_in_order_around_a_task() -> None:
    note_all()
    assert testing.run(add, {"a": 1}).result == 3
    assert SEEN == [
        "worker starts",
        "and so on",
        ("starts", "1", "add", 1, "test", {"a": 1}),
        "runs",
        ("ends", 1, "succeeded", None),
        "but first",
        "worker stops",
    ]


def test_each_attempt_has_its_own_end() -> None:
    note_all()
    made: list[BaseException] = []

    def sleeps(ctx: Context) -> None:
        ctx.sleep(3600.0, "a while")
        made.append(ValueError("no"))
        raise made[0]

    with pytest.raises(ValueError, match="no"):
        testing.run(sleeps)
    assert [each for each in SEEN if each[0] == "ends"] == [
        ("ends", 1, "sleeping", None),
        ("ends", 2, "failed", made[0]),
    ]


def test_a_task_that_is_killed_or_does_not_fit_has_no_end() -> None:
    note_all()

    def loops(ctx: Context) -> None:
        for _ in ctx.each("items", [1, 2]):
            pass

    testing.run(loops, kill_at=("items", 1))
    assert [each[0] for each in SEEN if type(each) is tuple] == ["starts"]
    assert "worker stops" not in SEEN


def test_what_a_hook_sets_in_the_context_is_the_tasks_too() -> None:
    var = contextvars.ContextVar("var", default=0)
    taskd.on_task_start(lambda task: var.set(7) and None)

    async def sees_it() -> int:
        return var.get()

    assert testing.run(lambda_of(var.get)).result == 7
    assert testing.run(sees_it).result == 7


def lambda_of(fn: Any) -> Any:
    def called() -> Any:
        return fn()

    return called


@pytest.mark.parametrize("raised", [ValueError, SystemExit, KeyboardInterrupt, taskd.Interrupted])
def test_an_error_changes_nothing_and_is_told_without_secrets(
    raised: type[BaseException], capfd: pytest.CaptureFixture[str]
) -> None:
    @taskd.on_task_start
    def fails(task: TaskInfo) -> None:
        raise raised(task.args["password"].reveal())

    @taskd.on_task_end
    def fails_too(task: TaskInfo, end: TaskEnd) -> None:
        raise raised("at the end")

    taskd.on_task_start(lambda task: SEEN.append("the next one"))

    def takes(password: Secret[str]) -> int:
        return 5

    assert testing.run(takes, {"password": Secret("hunter22")}).result == 5
    told = capfd.readouterr().err
    assert "taskd: on_task_start (" in told
    assert "taskd: on_task_end (" in told
    assert "test_task_hooks.py" in told
    assert "hunter22" not in told
    assert SEEN == ["the next one"]


def test_one_that_is_not_done_in_time_is_interrupted(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(running, "WITHIN", 0.05)
    monkeypatch.setattr(running, "_AGAIN", 0.05)
    monkeypatch.setattr(running, "_timer", lambda: (0.0, 0.0))  # that of this test's own deadline

    @taskd.on_task_start
    def hangs(task: TaskInfo) -> None:
        for _ in range(3):
            try:
                time.sleep(60)
            except BaseException:
                SEEN.append("caught")
        time.sleep(60)

    taskd.on_task_start(lambda task: SEEN.append("passed over"))
    assert testing.run(add, {"a": 1}).result == 3
    assert SEEN == ["caught"] * 3 + ["runs"]
    assert "was not done after 0.05 s, and was interrupted" in capfd.readouterr().err
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_the_same_function_registered_again_runs_once() -> None:
    def noted() -> None:
        SEEN.append("once")

    for _ in range(2):
        taskd.on_worker_start(noted)
    testing.run(add, {"a": 1})
    assert SEEN == ["once", "runs"]


async def is_async(task: TaskInfo) -> None: ...


@pytest.mark.parametrize(
    ("register", "fn", "why"),
    [
        (taskd.on_task_start, is_async, r"on_task_start needs a plain function of 1 arguments"),
        (taskd.on_task_start, lambda: None, r"on_task_start needs .* \(task\): .*too many"),
        (taskd.on_task_end, lambda task: None, r"on_task_end needs .* 2 arguments \(task, end\)"),
        (taskd.on_worker_start, lambda worker: None, r"without arguments: .* missing a required"),
        (taskd.on_worker_stop, None, "not NoneType: write it without parentheses"),
    ],
)
def test_what_could_not_be_called_is_refused_at_the_import(
    register: Any, fn: Any, why: str
) -> None:
    with pytest.raises(TypeError, match=why):
        register(fn)


def test_partials_and_functions_in_c_are_fine() -> None:
    taskd.on_worker_start(functools.partial(SEEN.append, "partial"))
    taskd.on_worker_stop(sys.stdout.flush)
    testing.run(add, {"a": 1})
    assert SEEN == ["partial", "runs"]

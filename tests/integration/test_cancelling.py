"""Cancelling a task wherever it is; and stopping the daemon, which asks every task to leave."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable

import pytest
from support.daemon import Daemon, repeated
from support.waiting import eventually

import taskd

APP = """
import time
from taskd import task
from side import attempt, gate, mark, until_asked

@task(queue="one")
def polite(ctx, n: int) -> list:
    try:
        for i in ctx.each("items", range(n)):
            mark(i)
            if i == 1 and attempt() == 1:
                until_asked(ctx)
            ctx.state["seen"] = [*ctx.state.get("seen", []), i]
    finally:
        mark("finally")
    return ctx.state["seen"]

@task
def stubborn() -> None:
    mark("here")
    if attempt() == 1:
        gate("never")

@task
def swallows(ctx) -> str:
    import taskd
    try:
        mark("here")
        until_asked(ctx)
        ctx.checkpoint()
    except taskd.Interrupted:
        return "done all the same"

@task
def fails_when_asked(ctx) -> None:
    mark("here")
    until_asked(ctx)
    raise ValueError("in a hurry")

@task
async def later(ctx) -> None:
    mark("here")
    await ctx.sleep(3600)

@task
def sleeps(ctx) -> str:
    ctx.step("first", mark, "first")
    ctx.sleep(3600, "long")
    return "awake"
"""


def begun(made: Daemon) -> Daemon:
    return made.with_releases(APP, "r1").start()


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    """It ends nobody by force while a test waits: who ends has left by itself."""
    made = new_daemon(
        queues={"one": {"concurrency": 1}}, daemon={"cancel_grace": 3600, "stop_timeout": 3600}
    )
    return begun(made)


@pytest.fixture
def impatient(new_daemon: Callable[..., Daemon]) -> Daemon:
    """For tasks that do not leave."""
    return begun(new_daemon(daemon={"cancel_grace": 0.2, "stop_timeout": 0.5}))


# ── cancel ───────────────────────────────────────────────────────────────────────────────────


def test_a_queued_task_is_cancelled_at_once_and_never_runs(daemon: Daemon) -> None:
    client = daemon.client()
    first, behind = client.submit("polite", {"n": 3}), client.submit("polite", {"n": 3})
    daemon.reached(first.id, "1")
    assert behind.cancel() == {"state": "cancelled", "was": "queued"}
    assert first.cancel()["was"] == "running"
    first.wait(30)
    with pytest.raises(taskd.TaskCancelled):
        behind.result(30)
    assert daemon.items(behind.id) == []


def test_a_scheduled_task_is_cancelled_at_once(daemon: Daemon) -> None:
    task = daemon.client().submit("polite", {"n": 3}, delay=3600)
    assert task.status().state == "scheduled"
    assert task.cancel() == {"state": "cancelled", "was": "scheduled"}


def test_a_running_task_leaves_at_its_next_safe_point(daemon: Daemon) -> None:
    task = daemon.client().submit("polite", {"n": 4})
    pid = daemon.reached(task.id, "1").pid
    assert task.cancel() == {"state": "running", "was": "running"}
    assert task.wait(30).state == "cancelled"
    assert daemon.items(task.id) == ["0", "1", "finally"]
    assert "cancelled by user" in str(task.status().reason)

    def worker_of_another() -> int:
        again = daemon.client().submit("polite", {"n": 1})
        assert again.result(30) == [0]
        return daemon.reached(again.id, "0").pid

    # another worker is started for those that come before this one is free again
    eventually(lambda: worker_of_another() == pid, "its worker lives and is used again")


def test_a_sleeping_async_task_is_cancelled_at_once(daemon: Daemon) -> None:
    task = daemon.client().submit("later")
    daemon.reached(task.id, "here")
    task.cancel()
    assert task.wait(30).state == "cancelled"


def test_a_stubborn_task_is_killed_after_the_grace(impatient: Daemon) -> None:
    task = impatient.client().submit("stubborn")
    pid = impatient.reached(task.id, "here").pid
    task.cancel()
    assert task.wait(30).state == "cancelled"
    eventually(lambda: pid not in impatient.processes(), "its worker is killed")


def test_a_task_whose_worker_dies_after_the_wish_is_not_queued_again(daemon: Daemon) -> None:
    task = daemon.client().submit("stubborn")
    pid = daemon.reached(task.id, "here").pid
    task.cancel()
    os.kill(pid, signal.SIGKILL)
    assert task.wait(30).state == "cancelled"
    assert daemon.items(task.id) == ["here"]


def test_an_end_that_succeeded_wins_over_the_wish(daemon: Daemon) -> None:
    task = daemon.client().submit("swallows")
    daemon.reached(task.id, "here")
    task.cancel()
    assert task.result(30) == "done all the same"


def test_a_task_that_fails_after_the_wish_is_cancelled(daemon: Daemon) -> None:
    task = daemon.client().submit("fails_when_asked")
    daemon.reached(task.id, "here")
    task.cancel()
    assert task.wait(30).state == "cancelled"


def test_cancelling_what_has_ended_changes_nothing(daemon: Daemon) -> None:
    task = daemon.client().submit("polite", {"n": 1})
    assert task.result(30) == [0]
    before = task.status()
    for _ in range(2):
        assert task.cancel() == {"state": "succeeded", "was": "succeeded"}
    assert task.status() == before


def test_a_cancelled_task_continues_from_what_it_saved_when_retried(daemon: Daemon) -> None:
    task = daemon.client().submit("polite", {"n": 4})
    daemon.reached(task.id, "1")
    task.cancel()
    assert task.wait(30).state == "cancelled"
    task.retry()
    assert task.result(30) == [0, 1, 2, 3]
    assert daemon.items(task.id) == ["0", "1", "finally", "2", "3", "finally"]


def test_cancelling_an_unknown_task_says_so(daemon: Daemon) -> None:
    with pytest.raises(taskd.UnknownTask, match="no task 4711"):
        daemon.client().cancel(4711)


# ── stop ─────────────────────────────────────────────────────────────────────────────────────


def test_a_stop_lets_tasks_leave_and_the_next_start_continues_them(daemon: Daemon) -> None:
    task = daemon.client().submit("polite", {"n": 4})
    daemon.reached(task.id, "1")
    assert daemon.stop() == 0
    assert daemon.processes() == []
    assert not os.path.exists(daemon.control)
    daemon.start()
    assert task.result(30) == [0, 1, 2, 3]
    assert daemon.items(task.id) == ["0", "1", "finally", "2", "3", "finally"]
    assert "interrupted: the daemon stops" in [e["reason"] for e in task.follow()]


def test_a_stop_ends_a_stubborn_task_by_force_and_it_is_not_counted_as_a_crash(
    impatient: Daemon,
) -> None:
    task = impatient.client().submit("stubborn")
    impatient.reached(task.id, "here")
    assert impatient.stop() == 0
    assert impatient.processes() == []
    impatient.start()
    assert task.result(30) is None
    reasons = [e["reason"] for e in task.follow() if e["reason"]]
    assert reasons == ["interrupted: the daemon stopped; did not leave in 0 s"]


def test_a_second_signal_stops_at_once(daemon: Daemon) -> None:
    task = daemon.client().submit("stubborn")
    daemon.reached(task.id, "here")
    daemon.kill(signal.SIGTERM)
    eventually(lambda: "stopping: 1 task is asked to leave" in daemon.log(), "it is stopping")
    daemon.kill(signal.SIGTERM)
    assert daemon.process is not None
    assert daemon.process.wait(30) == 0
    daemon.start()
    assert task.result(30) is None


def test_an_interrupt_from_the_terminal_stops_like_a_term(daemon: Daemon) -> None:
    task = daemon.client().submit("polite", {"n": 4})
    daemon.reached(task.id, "1")
    assert daemon.process is not None
    os.killpg(daemon.process.pid, signal.SIGINT)  # what Ctrl-C does
    assert daemon.process.wait(30) == 0
    daemon.start()
    assert task.result(30) == [0, 1, 2, 3]
    assert Counter(daemon.items(task.id))["1"] == 1


def test_a_sleeping_task_outlives_restarts_without_a_worker(daemon: Daemon) -> None:
    task = daemon.client().submit("sleeps")
    eventually(lambda: task.status().state == "scheduled", "it sleeps")
    at = task.status().run_at
    daemon.restart()
    daemon.kill()
    daemon.start()
    assert task.status().state == "scheduled"
    assert task.status().run_at == at
    assert repeated(daemon.effects()) == {}


def test_a_second_daemon_on_the_same_state_directory_exits_1_naming_the_first(
    daemon: Daemon,
) -> None:
    assert daemon.spawn().wait(30) == 1
    assert f"another taskd (pid {daemon.pid}) runs on the state directory" in daemon.log()
    assert daemon.client().status()["pid"] == daemon.pid
    assert daemon.client().submit("polite", {"n": 1}).result(30) == [0]

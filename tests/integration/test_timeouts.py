"""Timeouts: running seconds of one try, over deploys, kills, stops and starts.

No test measures a time: each waits for what must come, or reads from the store what was counted.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Callable
from typing import Any

import pytest
from support import processes
from support.daemon import Daemon
from support.waiting import eventually

from taskd.errors import Refused

APP = """
import time

import taskd
from taskd import task
from side import attempt, gate, is_open, mark, until_asked

@task(timeout=0.3, retries=1, backoff=0)
def leaves(ctx) -> None:
    for i in ctx.each("items", range(9)):
        mark(f"item {i}")
        if i:
            until_asked(ctx)

@task(timeout="1h", retries=1, backoff=0)
def deaf(ctx) -> str:
    mark("begin")
    gate(f"end {attempt()}")
    return "ended"

@task(timeout="1h", retries=3, backoff=0, give_up_on=taskd.TimedOut)
def gives_up(ctx, deaf: bool = False) -> None:
    mark("begin")
    gate("never") if deaf else until_asked(ctx)
    ctx.checkpoint()

@task(timeout=0.3, retries=3, backoff=0, retry_on=OSError)
def ends_in_the_grace(ctx, how: str) -> str:
    mark("begin")
    until_asked(ctx) if attempt() == 1 else None
    if how == "fails":
        raise ValueError("its own")
    return "done"

@task(on_deploy="checkpoint")
def moves(ctx) -> str:
    mark("begin")
    while not is_open("end"):
        ctx.sleep(0.005)
        ctx.checkpoint()
    return "ended"

@task(on_deploy="checkpoint")
def saves_much(ctx) -> str:
    mark(f"at {time.monotonic()}")
    mark("begin")
    if attempt() == 1:
        for n in range(8):
            ctx.state["much"] = bytes([n]) * (2 << 20)
            ctx.checkpoint()
        mark("saved")
    while not is_open("end"):
        ctx.sleep(0.005)
        ctx.checkpoint()
    return "ended"

@task(timeout=2)
def sleeps(ctx) -> str:
    ctx.sleep(3, "nap")
    return "awake"

@task(queue="short")
def by_queue(ctx) -> None:
    until_asked(ctx)
    ctx.checkpoint()

@task(queue="short", timeout="1h")
def by_code(ctx) -> str:
    gate("by code")
    return "ended"
"""

WHY = "ran for longer than its timeout of 0.3s"


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    made = new_daemon(
        daemon={"timeout_grace": "1h"},
        queues={"default": {"concurrency": 4}, "short": {"concurrency": 2, "timeout": 0.3}},
    )
    made.with_releases(APP, "r1", "r2")
    made.point("r1")
    return made


def quick(daemon: Daemon) -> Daemon:
    """The grace is short."""
    daemon.sections["daemon"]["timeout_grace"] = "200ms"
    daemon.write_config()
    return daemon


def reasons(daemon: Daemon, task: int) -> list[str]:
    with daemon.client() as client:
        return [each["reason"] for each in client.follow([task]) if each["reason"]]


def stored(daemon: Daemon, task: int, column: str) -> Any:
    raw = sqlite3.connect(daemon.path("state", "store.db"))
    try:
        return raw.execute(f"select {column} from tasks where id = ?", (task,)).fetchone()[0]
    finally:
        raw.close()


def test_a_timeout_asks_first_and_is_a_failure_that_uses_a_retry(daemon: Daemon) -> None:
    with daemon.start().client() as client:
        found = client.submit("leaves").wait(30)
    assert (found.state, found.attempt) == ("failed", 2)
    assert found.error is not None
    assert (found.error["type"], found.error["message"]) == ("TimedOut", WHY)
    assert "in ctx.each(" in found.error["traceback"], "where it left"
    assert reasons(daemon, found.id) == [
        f"retry 1 of 1 after TimedOut: {WHY}",
        f"TimedOut: {WHY}",
    ]
    assert daemon.items(found.id) == ["item_0", "item_1", "item_2"], "what was saved stays"


def test_what_does_not_leave_is_killed_and_fails_by_the_policy_of_its_code(daemon: Daemon) -> None:
    with quick(daemon).start().client() as client:
        task = client.submit("deaf", timeout=0.3)
        first = daemon.reached(task.id, "begin", attempt=1).pid
        eventually(lambda: not processes.is_alive(first), "it was killed")
        daemon.open_gate("end 2")
        found = task.wait(30)
        assert found.attempt == 2
        by_hand = client.submit("deaf", retries=0, timeout="300ms").wait(30)
        assert (by_hand.state, by_hand.attempt) == ("failed", 1)
        assert by_hand.reason == (f"TimedOut: {WHY}; did not leave in 0.2s, and was killed")
        assert client.submit("by_code").status().state in ("queued", "running"), "all goes on"
        daemon.open_gate("by code")


@pytest.mark.parametrize("deaf", [False, True])
def test_code_that_gives_up_on_a_timeout_is_not_tried_again(daemon: Daemon, deaf: bool) -> None:
    with quick(daemon).start().client() as client:
        found = client.submit("gives_up", {"deaf": deaf}, timeout=0.3).wait(30)
    assert (found.state, found.attempt) == ("failed", 1)
    assert found.reason is not None
    assert found.reason.endswith("not tried again: give_up_on names TimedOut")


def test_a_success_in_the_grace_is_a_success(daemon: Daemon) -> None:
    with daemon.start().client() as client:
        task = client.submit("ends_in_the_grace", {"how": "succeeds"})
        assert task.result(30) == "done"
        assert task.status().attempt == 1


def test_an_error_in_the_grace_is_the_tasks_own_and_the_reason_names_the_timeout(
    daemon: Daemon,
) -> None:
    with daemon.start().client() as client:
        found = client.submit("ends_in_the_grace", {"how": "fails"}).wait(30)
    assert (found.state, found.attempt) == ("failed", 1)
    assert found.error is not None and found.error["type"] == "ValueError"
    assert found.reason is not None and found.reason.startswith(f"{WHY}; ValueError: its own")


def test_submission_goes_before_code_and_code_before_queue(daemon: Daemon) -> None:
    with daemon.start().client() as client:
        code = client.submit("by_code")
        queue = client.submit("by_queue").wait(30)
        assert queue.error is not None and queue.error["message"] == WHY
        said = client.submit("by_queue", timeout=0.2).wait(30)
        assert said.error is not None and said.error["message"].endswith("of 0.2s")
        daemon.open_gate("by code")
        assert code.result(30) == "ended"


def test_sleeping_is_not_counted(daemon: Daemon) -> None:
    with daemon.start().client() as client:
        assert client.submit("sleeps").result(60) == "awake"


def test_a_cancel_in_the_grace_is_a_cancel(daemon: Daemon) -> None:
    with daemon.start().client() as client:
        task = client.submit("deaf", timeout=0.2)
        eventually(lambda: stored(daemon, task.id, "timed_out") == 1)
        task.cancel()
        daemon.open_gate("end 1")
        assert task.result(30) == "ended", "it ended well all the same"
        task = client.submit("moves", timeout=0.2)
        task.cancel()
        assert task.wait(30).state == "cancelled"


def test_a_program_gets_sigterm_and_is_timed_out(daemon: Daemon) -> None:
    with daemon.start().client() as client:
        given = {"argv": ["sleep", "1000"], "cwd": "/"}
        found = client.submit("command", given, timeout=0.3).wait(30)
    assert found.error is not None
    assert (found.state, found.error["type"]) == ("failed", "TimedOut")


# ── what happens to the daemon meanwhile ─────────────────────────────────────────────────────


@pytest.mark.parametrize("way", ["deploy", "kill", "stop that keeps"])
def test_a_new_master_goes_on_counting(daemon: Daemon, way: str) -> None:
    """The task runs on meanwhile, and its one attempt times out."""
    with daemon.start().client() as client:
        task = client.submit("deaf", timeout=1.0, retries=0)
        daemon.reached(task.id, "begin")
        if way == "deploy":
            daemon.reload("r2")
        elif way == "stop that keeps":
            client.shutdown(keep=True)
    if way == "kill":
        daemon.kill()
    if way != "deploy":
        daemon.start()
    with quick(daemon).client() as client:
        eventually(lambda: stored(daemon, task.id, "timed_out") == 1, "it was asked")
        daemon.open_gate("end 1")
        assert client.handle(task.id).result(30) == "ended"


def test_moves_count_together_however_many_there_are(daemon: Daemon) -> None:
    with daemon.start().client() as client:
        task = client.submit("moves", timeout=2.0)

        def is_over_after_a_deploy() -> bool:
            state = task.status().state
            if state == "running":
                daemon.reached(task.id, "begin", attempt=task.status().attempt)
                client.reload(daemon.path("releases", "r2"))
            return state == "failed"

        eventually(is_over_after_a_deploy, "its moves have used up the time")
        found = task.status()
        assert found.error is not None and found.error["type"] == "TimedOut"


@pytest.mark.parametrize("way", ["worker", "stop", "everything"])
def test_what_an_attempt_has_used_stands_in_the_row_of_the_next(daemon: Daemon, way: str) -> None:
    with daemon.start().client() as client:
        task = client.submit("moves", timeout="1h")
        pid = daemon.reached(task.id, "begin", attempt=1).pid
        if way == "worker":
            os.kill(pid, signal.SIGKILL)
    if way == "stop":
        daemon.stop()
    elif way == "everything":
        daemon.kill_everything()
    if way != "worker":
        daemon.start()
    daemon.reached(task.id, "begin", attempt=2)
    assert stored(daemon, task.id, "used") > 0
    assert stored(daemon, task.id, "used_upto") == 1
    daemon.open_gate("end")
    with daemon.client() as client:
        assert client.handle(task.id).result(30) == "ended"
    assert stored(daemon, task.id, "used") is None


def test_a_crash_does_not_forget_when_a_task_with_much_saved_began(daemon: Daemon) -> None:
    """A snapshot has replaced its slot's first record; the worker knows."""
    with daemon.start().client() as client:
        task = client.submit("saves_much", timeout="1h")
        began = daemon.reached(task.id, "saved")
    daemon.kill()
    daemon.start()
    eventually(lambda: f"adopted task={task.id}" in daemon.log())
    before = time.monotonic()
    os.kill(began.pid, signal.SIGKILL)
    daemon.reached(task.id, "begin", attempt=2)
    (at,) = [e.item for e in daemon.effects(task.id) if e.item.startswith("at_")][:1]
    assert stored(daemon, task.id, "used") >= before - float(at.removeprefix("at_"))
    daemon.open_gate("end")
    with daemon.client() as client:
        assert client.handle(task.id).result(30) == "ended"


def test_a_retry_begins_anew(daemon: Daemon) -> None:
    with quick(daemon).start().client() as client:
        task = client.submit("deaf", timeout=0.3)
        daemon.reached(task.id, "begin", attempt=2)
        assert stored(daemon, task.id, "used") is None
        daemon.open_gate("end 2")
        task.wait(30)


def test_a_timeout_that_was_told_counts_also_if_nobody_sees_the_end(daemon: Daemon) -> None:
    """The master has asked, and dies; then all that runs is killed, as by its second timer."""
    with daemon.start().client() as client:
        task = client.submit("deaf", timeout=0.3, retries=0)
        eventually(lambda: stored(daemon, task.id, "timed_out") == 1)
    daemon.kill_everything()
    with daemon.start().client() as client:
        found = client.handle(task.id).wait(30)
    assert (found.state, found.attempt) == ("failed", 1)
    assert found.error is not None and found.error["type"] == "TimedOut"


def test_a_kill_of_the_master_between_the_deadlines_leaves_the_second(daemon: Daemon) -> None:
    with daemon.start().client() as client:
        task = client.submit("deaf", timeout=0.3, retries=0)
        eventually(lambda: stored(daemon, task.id, "timed_out") == 1)
    daemon.kill()
    with quick(daemon).start().client() as client:
        found = client.handle(task.id).wait(30)
    assert found.state == "failed"
    assert found.reason is not None and found.reason.endswith("0.2s, and was killed")


@pytest.mark.parametrize(
    ("timeout", "why"), [(0, "not 0; leave it out"), ("", "not ''"), (-1, "not -1")]
)
def test_a_timeout_that_is_none_is_refused(daemon: Daemon, timeout: object, why: str) -> None:
    with daemon.start().client() as client, pytest.raises(Refused, match=why):
        client.submit("deaf", timeout=timeout)

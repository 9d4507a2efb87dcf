"""Every attempt of a task is kept and shown, over deploys, kills and starts."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable

import pytest
from support import processes
from support.daemon import Daemon
from support.waiting import eventually

import taskd
from taskd.client.records import AttemptInfo

APP = """
import os
from taskd import task
from side import attempt, gate, mark, until_asked

@task(retries=5, backoff=[0, 3600], on_deploy="checkpoint")
def lives(ctx, story: list) -> str:
    mark("begin")
    what = story[min(attempt(), len(story)) - 1]
    ctx.state["at"] = attempt()
    ctx.checkpoint()
    if what == "gate":
        gate(f"go-{attempt()}")
        what = "fail"
    if what == "fail":
        raise ValueError(f"on REVISION, attempt {attempt()}")
    elif what == "put off":
        ctx.retry(after=0, why="429", counts=False)
    elif what == "sleep":
        ctx.sleep(1.5, "nap")
    elif what == "die":
        os._exit(9)
    elif what == "wait":
        until_asked(ctx)
        ctx.checkpoint()
    return "in the end"

@task(retries=10_000, backoff=0)
def fails_often() -> None:
    if attempt() < 62:
        raise ValueError("x" * 10_000)
"""


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    made = new_daemon()
    for name in ("r1", "r2"):
        made.release(name, APP.replace("REVISION", name))
    made.point("r1")
    return made.start()


def told(daemon: Daemon, task: int) -> list[AttemptInfo]:
    with daemon.client() as client:
        return client.attempts(task)


def test_each_attempt_is_kept_with_how_it_ended_and_where_it_ran(daemon: Daemon) -> None:
    story = ["fail", "put off", "sleep", "die", "wait", "end"]
    with daemon.client() as client:
        task = client.submit("lives", {"story": story})
        running = daemon.reached(task.id, "begin", attempt=5)
        last = task.attempts()[-1]
        assert (last.attempt, last.how, last.ended, last.pid) == (5, None, None, running.pid)
        daemon.reload("r2")
        assert task.result(30) == "in the end"
        found = task.attempts()
    assert [(each.revision, each.how) for each in found] == [
        ("r1", "failed"),
        ("r1", "put off"),
        ("r1", "sleeping"),
        ("r1", "crashed"),
        ("r1", "interrupted"),
        ("r2", "succeeded"),
    ]
    failed, put_off, _, crashed, interrupted, _ = found
    assert failed.error is not None and put_off.error is not None
    assert failed.error["message"] == "on r1, attempt 1"
    assert "raise ValueError" in failed.error["traceback"]
    assert failed.delay == 0
    assert put_off.reason == "put off once, by itself: 429"
    assert crashed.reason == "crashed: its process ended by itself with exit status 9"
    assert interrupted.reason == "interrupted: deploy of r2"
    pids = [effect.pid for effect in daemon.effects(task.id)]
    assert [each.pid for each in found] == pids
    times = [moment for each in found for moment in (each.started, each.ended)]
    assert None not in times and times == sorted(times, key=float)  # type: ignore[arg-type]


def test_show_and_json_tell_the_attempts_and_the_drawn_delay(daemon: Daemon) -> None:
    with daemon.client() as client:
        task = client.submit("lives", {"story": ["fail", "fail"]})
        eventually(lambda: task.status().shown == "retrying" and task.status().run_at, "an hour")
    (found,) = map(json.loads, daemon.said("show", "--json", task.id).splitlines())
    assert [each["how"] for each in found["attempts"]] == ["failed", "failed"]
    assert [each["delay"] for each in found["attempts"]] == [0, 3600]
    page = daemon.said("show", str(task.id))
    assert ", 1h00m after the failure\n" in page
    assert "retries    2 of 5 used; waits 0s, 1h00m, 1h00m, 1h00m, 1h00m: gives up after" in page
    assert "ValueError: on r1, attempt 2; the next one 1h00m later" in page
    with daemon.client() as client:
        client.cancel(task.id)


@pytest.mark.parametrize("killed", ["master", "worker", "both", "everything"])
def test_no_kill_loses_an_attempt_or_keeps_one_twice(daemon: Daemon, killed: str) -> None:
    """After one has been kept, while the next one runs."""
    with daemon.client() as client:
        task = client.submit("lives", {"story": ["fail", "gate", "end", "end"]})
    pid = daemon.reached(task.id, "begin", attempt=2).pid
    if killed == "everything":
        daemon.kill_everything()
    if killed in ("master", "both"):
        daemon.kill()
    if killed in ("worker", "both"):
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not processes.is_alive(pid), "the worker is dead")
    if killed == "master":
        daemon.open_gate("go-2")  # it fails while nobody hears it
        eventually(lambda: not processes.is_alive(pid), "its end is in the slot")
    if killed != "worker":
        daemon.start()
    with daemon.client() as client:
        if killed == "master":
            task = client.handle(task.id)
            eventually(lambda: task.status().state == "scheduled", "it waits for an hour")
            task.cancel()
            expected = ["failed", "failed"]
        else:
            assert client.handle(task.id).result(30) == "in the end"
            expected = ["failed", "crashed", "succeeded"]
    found = told(daemon, task.id)
    assert [each.how for each in found] == expected
    assert [each.attempt for each in found] == list(range(1, len(found) + 1))
    assert found[1].pid == pid


def test_attempts_that_end_while_the_master_is_killed_again_and_again_are_all_kept(
    daemon: Daemon,
) -> None:
    story = ["fail", "die", "put off", "end"]
    with daemon.client() as client:
        tasks = [client.submit("lives", {"story": story}).id for _ in range(12)]
    for killed in range(1, 5):
        eventually(
            lambda least=8 * killed: len(daemon.effects()) >= least,  # type: ignore[misc]
            "some have gone on",
        )
        daemon.kill()
        daemon.start()
    with daemon.client() as client:
        client.wait(tasks, 60)
        for task in tasks:
            found = client.attempts(task)
            assert [each.attempt for each in found] == list(range(1, len(found) + 1))
            assert len(found) == client.task(task).attempt >= 4
            assert found[-1].how == "succeeded"
            begun = {effect.attempt for effect in daemon.effects(task)}
            assert begun >= {each.attempt for each in found if each.how != "not begun"}
            assert all(each.ended is not None and each.started is not None for each in found)


def test_what_is_kept_of_a_task_that_fails_for_ever_is_bounded(daemon: Daemon) -> None:
    with daemon.client() as client:
        task = client.submit("fails_often")
        task.wait(60)
        found = task.attempts()
    assert [each.attempt for each in found] == [1, 2, 3, 4, 5, *range(13, 63)]
    assert max(len(str(each.error)) for each in found) < 8000
    assert "  (7 more that are not shown)\n" not in daemon.said("show", str(task.id))
    assert "more that are not shown)\n" in daemon.said("show", str(task.id))


def test_another_users_attempts_are_unknown(daemon: Daemon) -> None:
    with daemon.client() as client, pytest.raises(taskd.UnknownTask, match="no task 4711"):
        client.attempts(4711)

"""Tasks that are changed by hand, by their ids and by filter, with a real daemon that is deployed
and killed in between."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import pytest
from support.daemon import TASKCTL, Daemon
from support.waiting import eventually

from taskd.errors import Refused

APP = """
import time
from taskd import task
from side import is_open, mark

@task(queue="one")
def blocks(ctx) -> str:
    mark("begin")
    while not is_open("go"):
        ctx.checkpoint()
        time.sleep(0.005)
    return "REVISION"

@task(queue="one")
def quick(n: int) -> str:
    mark(n)
    return "REVISION"

@task
def steps(ctx) -> str:
    for name in ("a", "b"):
        ctx.step(name, lambda: mark(name))
    for i in ctx.each("rows", range(3)):
        mark(i)
    ctx.step("c", lambda: mark("c"))
    if not is_open("good"):
        raise RuntimeError("no")
    return "REVISION"
"""


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    queues = {"one": {"concurrency": 1}, "two": {"concurrency": 1}}
    return new_daemon(queues=queues).with_releases(APP, "r1", "r2").start()


def test_tasks_are_counted_first_and_then_cancelled_moved_and_tried_again(daemon: Daemon) -> None:
    with daemon.client() as client:
        first = client.submit("blocks")
        daemon.reached(first.id, "begin")
        tasks = [client.submit("quick", {"n": n}) for n in range(7)]
        for words in (("cancel",), ("cancel", 5, "--all"), ("change", "--all")):
            assert daemon.taskctl(*words).returncode == 2
        asked = daemon.taskctl("cancel", "--name", "quick")
        assert asked.returncode == 2 and "say --yes" in asked.stderr
        assert asked.stdout.startswith("cancel: 7 tasks:\n") and "2 more" in asked.stdout
        assert daemon.taskctl("cancel", "--name", "quick", "--at-most", 6, "--yes").returncode == 2
        assert {task.status().state for task in tasks} == {"queued"}
        said = daemon.said("cancel", "--name", "quick", "--text", "no such", "--yes", "--json")
        assert json.loads(said) == {"found": 0, "done": 0, "passed": 0, "refused": []}
        assert "done for 7" in daemon.said("cancel", "--name", "quick", "--at-most", 7, "--yes")
        assert {task.status().state for task in tasks} == {"cancelled"}
        assert "done for 7" in daemon.said("retry", "--name", "quick", "--yes")
        daemon.said("change", tasks[6].id, "--to-priority", 9)
        daemon.said("change", tasks[5].id, "--delay", "1h")
        daemon.said("change", tasks[4].id, "--to-queue", "two")
        assert tasks[4].result(30) == "r1"
        assert "no queue 'tow'" in daemon.taskctl("change", 1, "--to-queue", "tow").stderr
        assert f"task {first.id} is running" in daemon.taskctl("change", 1, "--now").stderr
        daemon.reload("r2")
        daemon.kill()
        daemon.start()
        assert (tasks[6].status().priority, tasks[5].status().state) == (9, "scheduled")
        daemon.open_gate("go")
        assert tasks[0].result(30) == "r2"
        order = [each.task for each in daemon.effects() if each.item == "6" or each.item == "0"]
        assert order == [tasks[6].id, tasks[0].id]
        assert f"{tasks[5].id} changed" in daemon.said("change", tasks[5].id, "--now")
        assert tasks[5].result(30) == "r2"


def test_a_cut_off_change_of_many_has_done_each_or_not_and_goes_on(daemon: Daemon) -> None:
    with daemon.client() as client:
        client.pause(queue="one")
        tasks = [client.submit("quick", {"n": n}).id for n in range(450)]
        words = [sys.executable, "-c", TASKCTL, "--socket", daemon.control]
        words += ["cancel", "--name", "quick", "--yes"]
        cut_off = subprocess.Popen(words, env=daemon.environment(), stdout=subprocess.DEVNULL)
        eventually(lambda: client.task(tasks[-1]).state == "cancelled", "the first slice")
        daemon.kill()
        daemon.start()
        assert cut_off.wait(30) == 0
        states = client.status()["states"]
        assert (states["cancelled"], states["queued"]) == (450, 0)
        assert "0 tasks" in daemon.said("cancel", "--name", "quick", "--yes")


def test_a_task_is_tried_again_from_its_start_and_from_a_step(daemon: Daemon) -> None:
    with daemon.client() as client:
        task = client.submit("steps")
        assert task.wait(30).state == "failed"
        once = ["a", "b", "0", "1", "2", "c"]
        assert daemon.items(task.id) == once
        with pytest.raises(Refused, match="no step or loop 'x'"):
            client.retry(task.id, step="x")
        daemon.said("retry", "--from", "rows", task.id)
        eventually(lambda: task.status().attempt == 2 and task.status().state == "failed", "again")
        assert daemon.items(task.id) == once + once[2:]
        daemon.kill()
        daemon.start()
        daemon.open_gate("good")
        daemon.said("retry", "--from-start", task.id)
        assert task.result(30) == "r1"
        assert daemon.items(task.id) == once + once[2:] + once


def test_a_running_task_leaves_at_its_next_safe_point_when_asked(daemon: Daemon) -> None:
    with daemon.client() as client:
        task = client.submit("blocks")
        daemon.reached(task.id, "begin")
        daemon.reload("r2")
        daemon.said("checkpoint", task.id)
        daemon.reached(task.id, "begin", attempt=2)
        daemon.open_gate("go")
        assert task.result(30) == "r2"
        assert "only one that runs can leave" in daemon.taskctl("checkpoint", task.id).stderr

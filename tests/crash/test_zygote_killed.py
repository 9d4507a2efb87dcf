"""kill -9 of a zygote: nobody notices, and its workers' ends are still told truly."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

import pytest
from support import processes
from support.daemon import Daemon, repeated
from support.reasons import told
from support.waiting import eventually

APP = """
from taskd import task
from side import attempt, gate, mark

@task(queue="work")
def count(ctx, n: int) -> list:
    for i in ctx.each("items", range(n)):
        mark(i)
        if i == 1:
            gate("go")
        ctx.state["seen"] = [*ctx.state.get("seen", []), i]
    return ctx.state["seen"]

@task(queue="work")
def quick(n: int) -> int:
    mark("quick")
    return n + 1

@task(queue="work")
def hangs_once(ctx) -> str:
    mark("here")
    if attempt() == 1:
        gate("never")
    return "whole"
"""


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    made = new_daemon(queues={"work": {"concurrency": 20}})
    return made.with_releases(APP, "r1", "r2").start()


def kill_zygote(daemon: Daemon, revision: str = "r1") -> int:
    pid = daemon.zygotes()[revision]
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: pid not in daemon.processes(), "the zygote is dead")
    return pid


def test_running_tasks_go_on_and_new_ones_run(daemon: Daemon) -> None:
    client = daemon.client()
    running = [client.submit("count", {"n": 4}) for _ in range(4)]
    for task in running:
        daemon.reached(task.id, "1")
    old = kill_zygote(daemon)
    fresh = [client.submit("quick", {"n": n}) for n in range(8)]
    assert [task.result(30) for task in fresh] == list(range(1, 9))
    eventually(lambda: daemon.zygotes().get("r1") not in (None, old), "there is another zygote")
    assert {task.status().state for task in running} == {"running"}
    daemon.open_gate("go")
    assert [task.result(30) for task in running] == [[0, 1, 2, 3]] * 4
    assert repeated(daemon.effects()) == {}
    assert {effect.attempt for effect in daemon.effects()} == {1}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGBUS])
def test_a_worker_that_dies_after_its_zygote_is_told_with_its_true_status(
    daemon: Daemon, number: signal.Signals
) -> None:
    task = daemon.client().submit("hangs_once", {})
    pid = daemon.reached(task.id, "here").pid
    kill_zygote(daemon)
    os.kill(pid, number)
    assert task.result(30) == "whole"
    reasons = [told(e["reason"]) for e in task.follow() if e["reason"]]
    assert reasons == [f"crashed: its process was killed by {number.name}"]
    assert "how='its process was killed by SIGKILL'" in daemon.log(), "its zygote"
    assert daemon.reached(task.id, "here", 2).pid != pid


def test_a_zygote_and_its_worker_killed_together_lose_nothing(daemon: Daemon) -> None:
    task = daemon.client().submit("hangs_once", {})
    pid = daemon.reached(task.id, "here").pid
    os.kill(pid, signal.SIGKILL)
    kill_zygote(daemon)
    assert task.result(30) == "whole"
    assert [e.attempt for e in daemon.effects(task.id)] == [1, 2]


def test_a_deploy_goes_through_with_the_old_zygote_dead(daemon: Daemon) -> None:
    client = daemon.client()
    task = client.submit("count", {"n": 4})
    daemon.reached(task.id, "1")
    kill_zygote(daemon)
    assert daemon.reload("r2")["revision"] == "r2"
    assert client.submit("quick", {"n": 1}).result(30) == 2
    daemon.open_gate("go")
    assert task.result(30) == [0, 1, 2, 3]
    assert {e.revision for e in daemon.effects(task.id)} == {"r1"}
    eventually(lambda: set(daemon.zygotes()) == {"r2"}, "r1 has drained")


def test_a_zygote_killed_again_and_again_comes_back(daemon: Daemon) -> None:
    client = daemon.client()
    for n in range(3):
        kill_zygote(daemon)
        assert client.submit("quick", {"n": n}).result(30) == n + 1
        eventually(lambda: "r1" in daemon.zygotes(), "there is a zygote again")


def test_a_deploy_goes_through_while_a_new_zygote_of_the_old_revision_starts(
    new_daemon: Callable[..., Daemon],
) -> None:
    """Its Python has not come up: all that is known of it is the pid that was started."""
    daemon = new_daemon(queues={"work": {"concurrency": 20}})
    held, python = daemon.path("held"), daemon.path("python")
    with open(python, "w", encoding="utf-8") as file:
        file.write(f"#!/bin/sh\nwhile [ -e {held} ]; do sleep 0.01; done\n")
        file.write(f'exec {sys.executable} "$@"\n')
    os.chmod(python, 0o755)
    daemon.sections["app"] = {"python": python}
    daemon.write_config()
    daemon.with_releases(APP, "r1", "r2").start()
    client = daemon.client()
    running = client.submit("count", {"n": 4})
    daemon.reached(running.id, "1")
    with open(held, "w", encoding="utf-8"):
        kill_zygote(daemon)
    waiting = client.submit("quick", {"n": 1})
    eventually(lambda: "r1" in daemon.zygotes(), "a new zygote is started, and does not come up")
    daemon.sections["app"] = {}
    daemon.write_config()
    assert daemon.reload("r2")["revision"] == "r2"
    assert waiting.result(30) == 2
    os.unlink(held)
    daemon.open_gate("go")
    assert running.result(30) == [0, 1, 2, 3]


KEEPS_A_PROGRAM = """
import os, subprocess
from taskd import task

program = subprocess.Popen(["sleep", "1000"], start_new_session=True)
with open(os.environ["TASKD_TEST_GATES"] + "/program", "w") as file:
    file.write(str(program.pid))

@task
def quick() -> int:
    return 1
"""


@pytest.mark.parametrize("how", ["is killed", "is not needed any more"])
def test_what_the_app_started_at_its_import_goes_with_its_zygote(
    new_daemon: Callable[..., Daemon], how: str
) -> None:
    """It has left the zygote's session, and belongs to no worker: parentage alone tells of it."""
    daemon = new_daemon()
    daemon.release("r1", KEEPS_A_PROGRAM)
    daemon.release("r2", APP)
    daemon.point("r1")
    daemon.start()
    with open(daemon.path("gates", "program"), encoding="ascii") as file:
        program = int(file.read())
    assert processes.is_alive(program)
    if how == "is killed":
        kill_zygote(daemon)
    else:
        daemon.reload("r2")
    eventually(lambda: not processes.is_alive(program), "it is ended")
    assert daemon.process is not None and daemon.process.poll() is None

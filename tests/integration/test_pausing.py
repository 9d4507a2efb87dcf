"""Pauses with a real daemon: nothing fresh starts, what runs goes on, whatever comes between."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable

import pytest
from support.daemon import Daemon
from support.waiting import eventually

import taskd
from taskd.errors import NotAllowed

APP = """
from taskd import task
from side import gate, mark, until_asked

@task(queue="mail", on_deploy="checkpoint")
def moves(ctx) -> str:
    for i in ctx.each("items", range(3)):
        mark(i)
        if i == 0:
            until_asked(ctx)
        if i == 1:
            gate("end")
    return "REVISION"

@task(queue="mail")
def sends(n: int) -> str:
    mark(n)
    return "REVISION"

@task
def other(n: int) -> str:
    mark(n)
    return "REVISION"
"""


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    return new_daemon().with_releases(APP, "r1", "r2").start()


def test_a_paused_queue_starts_nothing_over_deploys_and_crashes_and_what_ran_goes_on(
    daemon: Daemon,
) -> None:
    with daemon.client() as client:
        running = client.submit("moves", {})
        daemon.reached(running.id, "0")
        said = daemon.said("pause", "--queue", "mail", "--why", "the server is down")
        assert said == "queue mail: paused\n"
        waiting = [client.submit("sends", {"n": n}) for n in range(3)]
        assert client.submit("other", {"n": 1}).result(30) == "r1"
        plan = client.reload(plan=True)["plan"]
        assert any("queue 'mail' is paused" in text for text in plan["warnings"])
        daemon.reload("r2")
        daemon.reached(running.id, "1")
        assert {e.revision for e in daemon.effects(running.id) if e.item == "1"} == {"r2"}
        daemon.kill()
        daemon.start()
        assert client.submit("other", {"n": 2}).result(30) == "r2"
        assert [each.status().state for each in waiting] == ["queued"] * 3
        why = str(waiting[0].status().reason)
        assert "queue 'mail' is paused by" in why and "the server is down" in why
        assert "taskctl resume --queue mail" in why
        status = daemon.said("status")
        assert "queue 'mail' is paused" in status
        assert json.loads(daemon.said("status", "--json"))["paused"][0]["queue"] == "mail"
        daemon.open_gate("end")
        assert running.result(30) == "r2"
        assert daemon.said("resume", "--queue", "mail") == "queue mail: resumed\n"
        assert [each.result(30) for each in waiting] == ["r2"] * 3
        assert daemon.said("resume", "--queue", "mail") == "queue mail: was not paused\n"


def test_a_paused_task_is_not_continued_after_a_crash(daemon: Daemon) -> None:
    with daemon.client() as client:
        task = client.submit("moves", {})
        pid = daemon.reached(task.id, "0").pid
        daemon.said("pause", "--task", "moves")
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: task.status().state == "queued", "it crashed")
        assert client.submit("sends", {"n": 1}).result(30) == "r1"
        daemon.restart()
        assert client.submit("sends", {"n": 2}).result(30) == "r1"
        assert task.status().state == "queued"
        assert "task 'moves' is paused" in str(task.status().reason)
        daemon.open_gate("end")
        daemon.said("resume", "--task", "moves")
        daemon.reached(task.id, "0", attempt=2)
        task.cancel()


def test_a_stop_and_a_start_are_no_reason_to_keep_what_ran(daemon: Daemon) -> None:
    with daemon.client() as client:
        task = client.submit("moves", {})
        daemon.reached(task.id, "0")
        client.pause(why="maintenance")
        fresh = client.submit("other", {"n": 1})
        daemon.stop()
        daemon.start()
        daemon.open_gate("end")
        assert task.result(30) == "r1"
        assert fresh.status().state == "queued"
        assert "everything is paused" in str(fresh.status().reason)
        assert client.resume() == {"was": True}
        assert fresh.result(30) == "r1"


def test_a_pause_ends_by_itself_also_if_it_was_over_while_no_daemon_ran(daemon: Daemon) -> None:
    with daemon.client() as client:
        client.pause(queue="mail", seconds=0.5)
        task = client.submit("sends", {"n": 1})
        assert task.result(30) == "r1"
        client.pause(seconds=0.001)
        task = client.submit("sends", {"n": 2})
        daemon.kill()
        daemon.start()
        assert task.result(30) == "r1"
        assert client.status()["paused"] == []
    said = daemon.said("pause", "--all", "--for", "2h", "--json")
    assert json.loads(said) == {"paused": True, "was": False}
    assert "until" in daemon.said("doctor")
    assert "everything is paused" in daemon.said("resume", "--queue", "mail")


def test_only_an_operator_pauses(daemon: Daemon) -> None:
    with taskd.Client(daemon.submit_socket) as client:
        with pytest.raises(NotAllowed, match="only an operator"):
            client.pause(queue="mail")
        with pytest.raises(NotAllowed, match="only an operator"):
            client.resume()
        assert client.status()["paused"] == []

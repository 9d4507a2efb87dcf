"""A deploy that there is no room for, and what is known after a restart of deploys that failed."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from support.daemon import Daemon
from support.waiting import eventually

from taskd.errors import DeployRefused

APP = """
from taskd import task
from side import gate, mark

@task
def stays(ctx, n: int) -> str:
    for i in ctx.each("items", range(n)):
        mark(i)
        gate("go")
    return "REVISION"
"""


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    made = new_daemon()
    return made.with_releases(APP, "r1", "r2", "r3").start()


def reserve(daemon: Daemon, size: object) -> None:
    daemon.sections["app"] = {"memory_reserve": size}
    daemon.write_config()


def refused(daemon: Daemon, name: str) -> str:
    before = daemon.client().status()["revision"]
    with pytest.raises(DeployRefused) as caught:
        daemon.reload(name)
    assert daemon.client().status()["revision"] == before
    return str(caught.value)


# ── the memory guard ─────────────────────────────────────────────────────────────────────────


def test_a_deploy_that_would_leave_too_little_memory_is_refused_with_who_uses_what(
    daemon: Daemon,
) -> None:
    task = daemon.client().submit("stays", {"n": 1})
    daemon.reached(task.id, "0")
    daemon.reload("r2")
    reserve(daemon, "1024TiB")
    why = refused(daemon, "r3")
    size = r"[\d.]+[GM]iB"
    expected = (
        f"{size} of memory are available; one more revision needs about {size}, and "
        rf"\[app\] memory_reserve = 1024TiB must be left: r1 is held by task {task.id} "
        rf"\(stays\) and uses {size}; r2 is held by being the current one and uses {size}\. "
        "Wait until one has drained"
    )
    with pytest.raises(DeployRefused, match=expected):
        daemon.reload("r3")
    assert "zygote started revision=r3" not in daemon.log(), why
    daemon.open_gate("go")
    assert task.result(30) == "r1"


def test_a_revision_that_lives_already_needs_no_more_memory(daemon: Daemon) -> None:
    reserve(daemon, "1024TiB")
    assert daemon.reload("r1")["revision"] == "r1"


def test_the_memory_guard_can_be_turned_off(daemon: Daemon) -> None:
    reserve(daemon, "1024TiB")
    refused(daemon, "r2")
    reserve(daemon, "none")
    assert daemon.reload("r2")["revision"] == "r2"


# ── what is known after a restart ────────────────────────────────────────────────────────────


def test_what_was_refused_is_known_after_a_restart_and_a_crash(daemon: Daemon) -> None:
    daemon.release("bad", "raise ValueError('no such thing')")
    refused(daemon, "bad")
    told = daemon.client().rejected()
    assert [each["revision"] for each in told] == ["bad"]
    assert "no such thing" in told[0]["reason"]
    daemon.restart()
    assert daemon.client().rejected() == told
    daemon.kill()
    daemon.start()
    assert daemon.client().rejected() == told


def cut_off(daemon: Daemon, name: str) -> None:
    """What a daemon leaves that dies between its exec and the decision."""
    daemon.kill()
    with open(daemon.path("state", "handoff"), "w", encoding="utf-8") as file:
        file.write(daemon.path("releases", name))
    daemon.start()


def test_a_start_tells_of_a_deploy_that_ended_in_a_crash_and_serves_the_old_revision(
    daemon: Daemon,
) -> None:
    cut_off(daemon, "r2")
    why = "the deploy of r2 ended in a crash of the daemon"
    with daemon.client() as client:
        assert client.status()["revision"] == "r1"
        assert client.status()["note"] == f"{why}; r1 serves"
        assert [(r["revision"], r["reason"]) for r in client.rejected()] == [("r2", why)]
    assert f"error: {why}; r1 serves" in daemon.log()
    assert not os.path.exists(daemon.path("state", "handoff"))
    daemon.restart()
    assert daemon.client().status()["note"] == "", "told once"
    assert daemon.reload("r2")["revision"] == "r2", "a good deploy afterwards"


def test_a_crash_right_after_the_decision_is_no_refusal_and_after_drain_is_made_up_for(
    daemon: Daemon,
) -> None:
    daemon.reload("r2")
    daemon.sections["hooks"] = {"after_drain": "echo $TASKD_REVISION $TASKD_PREVIOUS"}
    daemon.write_config()
    cut_off(daemon, "r2")
    assert "the daemon crashed right after the deploy of r2; r2 serves" in daemon.log()
    assert daemon.client().rejected() == []
    line = f"after_drain: r2 {daemon.path('releases', 'r1')}"
    eventually(lambda: line in daemon.log())

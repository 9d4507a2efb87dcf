"""Releases whose directories have one base name (releases/1/app, releases/2/app): told apart."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from support.daemon import Daemon

import taskd
from taskd.errors import Refused

APP = """
import os
from taskd import task
from side import gate, mark

@task
def which(ctx):
    mark("begun")
    gate(f"go{ctx.id}")
    return os.environ["TASKD_REVISION"]
"""


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    made = new_daemon()
    for number in "123":
        os.mkdir(made.path("releases", number))
        made.release(f"{number}/app", APP)
    made.point("1/app")
    return made.start()


def names(client: taskd.Client) -> list[str]:
    return [str(each["revision"]) for each in client.revisions()]


def states(client: taskd.Client) -> dict[str, str]:
    return {str(each["revision"]): str(each["state"]) for each in client.revisions()}


def test_they_are_told_apart_everywhere_and_over_a_crash(daemon: Daemon) -> None:
    client = daemon.client()
    first = client.submit("which")
    daemon.reached(first.id, "begun")
    assert daemon.reload("2/app")["revision"] == "2/app"
    second = client.submit("which")
    assert daemon.reached(second.id, "begun").revision == "2/app"
    assert daemon.reload("3/app")["revision"] == "3/app"
    apart = {"3/app": "current", "2/app": "draining", "app": "draining"}
    assert states(client) == apart
    assert "revision=2/app" in daemon.log()
    daemon.kill()
    daemon.start()
    assert states(client) == apart
    daemon.open_gate(f"go{first.id}")
    daemon.open_gate(f"go{second.id}")
    assert (first.result(30), second.result(30)) == ("app", "2/app")
    assert [client.task(each.id).revision for each in (first, second)] == ["app", "2/app"]
    assert client.rollback()["revision"] == "2/app"


def test_a_drain_that_may_mean_two_is_refused_and_a_path_is_not(daemon: Daemon) -> None:
    client = daemon.client()
    task = client.submit("which")
    daemon.reached(task.id, "begun")
    path = daemon.path("releases", "1", "app")
    daemon.reload("2/app")
    with pytest.raises(Refused, match=r"'app' may be .*/1/app or .*/2/app: say more of its path"):
        client.drain("app", "now")
    with pytest.raises(Refused, match="no revision 'pp' is alive"):
        client.drain("pp", "now")
    assert client.drain("1/app")["running"] == 1
    daemon.open_gate(f"go{task.id}")
    assert client.drain(path, "now") == {"running": 1, "asked": 1}
    assert task.result(30) in ("app", "2/app")

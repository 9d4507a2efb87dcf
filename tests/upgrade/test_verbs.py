"""taskctl's deploy verbs against a real daemon: what they print, change and leave alone."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from support.daemon import TASKCTL, Daemon
from support.waiting import eventually

APP = """
from taskd import task
from side import gate, mark, until_asked

@task
def stays(ctx) -> str:
    mark(0)
    gate("go")
    return "REVISION"

@task(on_deploy="checkpoint")
def moves(ctx, n: int) -> str:
    for i in ctx.each("items", range(n)):
        mark(i)
        if i == 0:
            until_asked(ctx)
    return "REVISION"
"""

HANGS = """
from side import gate
gate("import")
"""


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    made = new_daemon()
    return made.with_releases(APP, "r1", "r2").start()


def taskctl(daemon: Daemon, *words: str) -> tuple[int, str, str]:
    ran = daemon.taskctl(*words)
    return ran.returncode, ran.stdout, ran.stderr


def points_to(daemon: Daemon) -> str:
    return os.path.basename(os.path.realpath(daemon.path("current")))


def serving(daemon: Daemon) -> str:
    with daemon.client() as client:
        return str(client.status()["revision"])


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_deploy_switches_reloads_and_tells_what_drains(daemon: Daemon) -> None:
    with daemon.client() as client:
        stays = client.submit("stays")
        daemon.reached(stays.id, "0")
        status, out, err = taskctl(daemon, "deploy", "releases/r2")
        assert (status, err) == (0, "")
        assert re.fullmatch(r"r2 serves \(r1 drains: 1 running\); pause \d+ ms\n", out)
        assert (points_to(daemon), serving(daemon)) == ("r2", "r2")
        table = taskctl(daemon, "revisions")[1].splitlines()
        assert [line.split()[:2] for line in table[1:]] == [["r2", "current"], ["r1", "draining"]]
        assert table[2].endswith(f"{stays.id} stays")
        found = objects(taskctl(daemon, "revisions", "--json")[1])
        assert found[1]["holds"] == [{"task": str(stays.id), "name": "stays"}]
        assert found[1]["memory"] > 2**20
        daemon.open_gate("go")
        assert stays.result(30) == "r1"


def test_a_plan_shows_each_task_and_changes_nothing(daemon: Daemon) -> None:
    with daemon.client() as client:
        stays, moves = client.submit("stays"), client.submit("moves", {"n": 2})
        for task in (stays, moves):
            daemon.reached(task.id, "0")
        for verb in (["deploy", "r2"], ["deploy", "releases/r2"]):
            status, out, _ = taskctl(daemon, *verb, "--plan")
            rows = [line.split()[:4] for line in out.splitlines()]
            assert status == 0
            assert [str(stays.id), "stays", "r1", "finishes"] in rows
            assert [str(moves.id), "moves", "r1", "moves"] in rows
        assert (points_to(daemon), serving(daemon)) == ("r1", "r1")
        assert [each["revision"] for each in client.revisions()] == ["r1"]
        daemon.open_gate("go")
        client.cancel(moves.id)
        client.wait([stays.id, moves.id], 30)


def test_what_would_be_held_refuses_the_deploy_unless_it_is_allowed(daemon: Daemon) -> None:
    daemon.release("r3", "from taskd import task\n\n@task\ndef other() -> None: ...\n")
    with daemon.client() as client:
        waits = client.submit("moves", {"n": 1}, delay=3600)
        status, out, err = taskctl(daemon, "deploy", "releases/r3", "--plan")
        assert (status, "held" in out, "--allow-held" in err) == (1, True, True)
        status, out, err = taskctl(daemon, "deploy", "releases/r3")
        assert (status, out) == (1, "")
        assert "moves" in err
        assert (points_to(daemon), serving(daemon)) == ("r1", "r1")
        status, out, err = taskctl(daemon, "deploy", "releases/r3", "--allow-held")
        assert (status, out[:9]) == (0, "r3 serves")
        assert "moves" in err
        assert (points_to(daemon), serving(daemon)) == ("r3", "r3")
        client.cancel(waits.id)


def test_a_refused_release_is_switched_back_and_remembered_with_its_reason(
    daemon: Daemon,
) -> None:
    daemon.release("bad", "import no_such_module\n")
    before = os.readlink(daemon.path("current"))
    for _ in range(2):
        status, out, err = taskctl(daemon, "deploy", "releases/bad")
        assert (status, out) == (1, "")
        assert "no_such_module" in err
        assert f"{daemon.path('current')} points to {before} again" in err
        assert os.readlink(daemon.path("current")) == before
    assert serving(daemon) == "r1"
    table = taskctl(daemon, "revisions")[1]
    assert "REJECTED" in table
    assert "no_such_module" in table
    rejected = objects(taskctl(daemon, "revisions", "--rejected", "--json")[1])
    assert {each["revision"] for each in rejected} == {"bad"}
    assert "no_such_module" in taskctl(daemon, "status")[1]
    assert taskctl(daemon, "deploy", "releases/r2")[0] == 0


def test_rollback_deploys_the_release_before_and_the_symlink_follows(daemon: Daemon) -> None:
    status, out, err = taskctl(daemon, "rollback")
    assert (status, out) == (1, "")
    assert "no release before" in err
    assert taskctl(daemon, "deploy", "releases/r2")[0] == 0
    status, out, err = taskctl(daemon, "rollback")
    assert (status, out[:9]) == (0, "r1 serves")
    assert f"{daemon.path('current')} points to" in err
    assert (points_to(daemon), serving(daemon)) == ("r1", "r1")


def test_a_symlink_that_names_another_release_shows_in_status(daemon: Daemon) -> None:
    daemon.point("r2")
    assert "r2 (taskctl reload)" in taskctl(daemon, "status")[1]
    assert taskctl(daemon, "reload")[0] == 0
    assert "names another release" not in taskctl(daemon, "status")[1]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_caller_that_goes_away_gives_up_the_deploy(
    daemon: Daemon, number: int, status: int
) -> None:
    daemon.release("slow", HANGS)
    with subprocess.Popen(
        [sys.executable, "-c", TASKCTL, "--socket", daemon.control, "deploy", "releases/slow"],
        cwd=daemon.root,
        env=daemon.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as caller:
        eventually(lambda: "slow" in daemon.zygotes(), "the release is being proven")
        assert points_to(daemon) == "slow"
        caller.send_signal(number)
        out, err = caller.communicate(timeout=60)
    assert (caller.returncode, out) == (status, "")
    assert "again" in err
    assert points_to(daemon) == "r1"
    eventually(lambda: "slow" not in daemon.zygotes(), "its process is gone")
    assert taskctl(daemon, "deploy", "releases/r2")[0] == 0
    assert (points_to(daemon), serving(daemon)) == ("r2", "r2")


@pytest.mark.parametrize("how", ["now", "checkpoint"])
def test_drain_empties_an_old_revision(daemon: Daemon, how: str) -> None:
    """The task would finish where it is; what is asked of it here makes it go on on r2."""
    with daemon.client() as client:
        task = client.submit("stays")
        daemon.reached(task.id, "0", 1)
        assert taskctl(daemon, "deploy", "releases/r2")[0] == 0
        status, out, _ = taskctl(daemon, "drain", "--revision", "r1")
        assert (status, out) == (0, "r1 drains: 1 running\n")
        status, out, _ = taskctl(daemon, "drain", "--revision", "r1", f"--{how}")
        assert status == 0
        assert out.startswith("r1 drains: 1 running, 1 ")
        if how == "checkpoint":  # it has none before its end
            daemon.open_gate("go")
            assert task.result(30) == "r1"
        else:
            daemon.reached(task.id, "0", 2)
            daemon.open_gate("go")
            assert task.result(30) == "r2"
        eventually(lambda: len(client.revisions()) == 1, "r1 is gone")


def test_what_cannot_be_drained_is_refused(daemon: Daemon) -> None:
    for words in (["r9"], ["r1"], ["r1", "--now"]):
        status, out, err = taskctl(daemon, "drain", "--revision", *words)
        assert (status, out) == (1, "")
        assert words[0] in err

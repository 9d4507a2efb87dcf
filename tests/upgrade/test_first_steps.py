"""What a newcomer meets in the first hour: output as it comes, errors with their place."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.daemon import Daemon
from support.waiting import eventually

from taskd.errors import DeployRefused

APP = """
from taskd import task
from side import gate, mark

@task
def talks() -> None:
    print("a line")
    gate("go")

@task
def raises() -> None:
    import os
    os._exit(9)
"""


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    made = new_daemon()
    return made.with_releases(APP, "r1").start()


def test_a_printed_line_is_in_the_log_before_the_task_ends(daemon: Daemon) -> None:
    task = daemon.client().submit("talks")

    log = Path(daemon.path("logs", f"{task.id}.log"))
    eventually(lambda: log.exists() and log.read_text() == "a line\n", "the line is in the log")
    daemon.open_gate("go")
    task.result(30)


@pytest.mark.parametrize(
    ("source", "where"),
    [("x = 1\ndef f(:\n", "line 2)"), ("import side\n\n\n{}['db']\n", "line 4)")],
)
def test_a_release_that_does_not_import_is_told_with_file_and_line(
    daemon: Daemon, source: str, where: str
) -> None:
    path = daemon.release("r2", source)
    with pytest.raises(DeployRefused) as refused:
        daemon.reload("r2")
    assert f"({path}/app.py, {where}" in str(refused.value)
    assert "Traceback" in daemon.log()


def test_a_daemon_does_not_take_the_sockets_of_another_one(daemon: Daemon) -> None:
    command = [sys.executable, "-m", "taskd", "run", "--config", daemon.path("taskd.toml")]
    environment = daemon.environment() | {"STATE_DIRECTORY": daemon.path("other-state")}
    second = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert second.returncode == 1
    assert "another daemon listens on" in second.stderr
    assert daemon.client().status()["revision"] == "r1"


def test_what_is_held_already_keeps_no_deploy_from_going_through(daemon: Daemon) -> None:
    task = daemon.client().submit("raises")
    eventually(lambda: task.status().state == "held", "its crashes are used up")
    daemon.release("r2", APP.replace("def raises", "def renamed"))
    assert daemon.reload("r2")["revision"] == "r2"
    assert task.status().state == "held"

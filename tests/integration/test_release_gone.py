"""A release that was deployed last and is gone: the way back that the daemon names."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.daemon import Daemon
from support.users import STRANGER

APP = """
from taskd import task

@task
def quick() -> int:
    return 2
"""

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    """It has served r1, which is gone; the symlink names r2."""
    made = new_daemon()
    made.with_releases(APP, "r1", "r2").start()
    assert made.stop() == 0
    shutil.rmtree(made.path("releases", "r1"))
    made.point("r2")
    return made


def confirm(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "taskd", "confirm", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_that_a_refused_start_names_leads_back(daemon: Daemon) -> None:
    assert daemon.spawn().wait(60) == 1
    named = re.search("`taskd confirm (.*)`", daemon.log())
    assert named is not None, daemon.log()
    assert confirm(*shlex.split(named[1])).returncode == 0
    daemon.start()
    with daemon.client() as client:
        assert client.status()["revision"] == "r2"
    daemon.restart()


def test_a_release_that_was_started_by_its_path_is_the_one_of_the_next_start(
    daemon: Daemon,
) -> None:
    daemon.start("--release", daemon.path("releases", "r2"))
    daemon.restart()
    with daemon.client() as client:
        assert client.status()["revision"] == "r2"


def test_it_is_refused_while_a_daemon_runs_and_for_what_is_no_release(daemon: Daemon) -> None:
    state, r2 = daemon.path("state"), daemon.path("releases", "r2")
    refused = confirm("--state", state, daemon.path("releases", "r1"))
    assert refused.returncode == 1 and "there is no release directory" in refused.stderr
    daemon.start("--release", r2)
    refused = confirm("--state", state, r2)
    assert refused.returncode == 1
    assert f"another taskd (pid {daemon.pid}) runs on the state directory" in refused.stderr


def test_it_helps_where_the_file_cannot_be_read(daemon: Daemon) -> None:
    Path(daemon.path("state", "confirmed")).write_text("nonsense")
    assert daemon.spawn().wait(60) == 1
    assert f"taskd confirm --state {daemon.path('state')} PATH" in daemon.log()
    assert confirm("--state", daemon.path("state"), daemon.path("current")).returncode == 0
    daemon.start()


@needs_root
def test_root_writes_it_as_the_states_owner_and_the_release_must_be_theirs_to_read(
    daemon: Daemon,
) -> None:
    state, r2 = daemon.path("state"), daemon.path("releases", "r2")
    for path in (state, *(os.path.join(state, name) for name in os.listdir(state))):
        os.chown(path, STRANGER, STRANGER)
    os.chmod(r2, 0o700)
    refused = confirm("--state", state, r2)
    assert refused.returncode == 1 and f"may not read {r2}" in refused.stderr
    os.chmod(r2, 0o755)
    assert confirm("--state", state, r2).returncode == 0
    written = Path(state, "confirmed")
    assert (written.stat().st_uid, json.loads(written.read_text())["release"]) == (STRANGER, r2)
    for path in (state, *(os.path.join(state, name) for name in os.listdir(state))):
        os.chown(path, 0, 0)

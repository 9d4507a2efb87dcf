"""A mere submitter makes a deploy's plan as large as he can: every verdict is true all the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import combinations, count, islice
from typing import Any

import pytest
from support.daemon import Daemon
from support.raw import Raw
from support.users import STRANGER, as_user, gid, groups_here
from support.waiting import eventually

from taskd.protocol import data, frames

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")

APP = """
from taskd import task

@task
def notes(**more): ...

@task
def options(a=0, b=0, c=0, d=0, e=0, f=0, g=0, h=0, i=0, j=0): ...
"""

LONG = 1_000
"""Shapes of long names: what names them takes more than a frame."""

NAMED = 3_000
"""Characters in such a name."""

MANY = 1_000
"""Shapes of few letters."""

SUBMITTERS = groups_here(1)[0]

COMMAND = "import sys; from taskd.cli.taskctl import main; sys.exit(main())"


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    made = new_daemon(access={"submit_groups": [SUBMITTERS]})
    made.release("r1", APP)
    made.release("r2", APP)
    made.release("bare", "import taskd")
    made.point("r1")
    made.start()
    as_user(STRANGER, [gid(SUBMITTERS)], lambda: flood(made.submit_socket))
    return made


def flood(path: str) -> None:
    with Raw(path) as raw:
        left = tasks()
        while batch := list(islice(left, 500)):
            raw.ask("submit", tasks=batch)


def tasks() -> Iterator[dict[str, Any]]:
    for number in range(LONG):
        yield asked("notes", [f"{number:04}".ljust(NAMED, "n")])
    subsets = (letters for size in count() for letters in combinations("abcdefghij", size))
    for letters in islice(subsets, MANY):
        yield asked("options", letters)


def asked(name: str, arguments: Iterable[str]) -> dict[str, Any]:
    args = data.encode(dict.fromkeys(arguments, 1))
    return {"submission": os.urandom(16), "name": name, "args": args, "delay": 9e8}


def taskctl(daemon: Daemon, *words: str) -> tuple[int, str, str]:
    ran = subprocess.run(
        [sys.executable, "-c", COMMAND, "--socket", daemon.control, *words],
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.returncode, ran.stdout, ran.stderr


def serves(daemon: Daemon) -> tuple[str, str, str]:
    """By the daemon's word, by what a start would use, and by the symlink."""
    with open(daemon.path("state", "confirmed"), encoding="utf-8") as file:
        confirmed = json.load(file)["release"]
    at = os.path.realpath(daemon.path("current"))
    return daemon.client().status()["revision"], os.path.basename(confirmed), os.path.basename(at)


def test_what_was_deployed_is_told_as_deployed(daemon: Daemon) -> None:
    status, out, err = taskctl(daemon, "deploy", daemon.path("releases", "r2"))
    assert (status, out.split(";")[0], err) == (0, "r2 serves (r1 drains: 0 running)", "")
    assert serves(daemon) == ("r2", "r2", "r2")
    assert taskctl(daemon, "reload")[::2] == (0, "")
    assert taskctl(daemon, "rollback")[0] == 0
    assert serves(daemon) == ("r1", "r1", "r1")


def test_a_plan_counts_what_it_does_not_name(daemon: Daemon) -> None:
    status, out, _ = taskctl(daemon, "reload", "--plan", "--json")
    plan = json.loads(out)["plan"]
    assert (status, plan["counts"], len(plan["waiting"])) == (0, {"continues": LONG + MANY}, 100)
    assert len(frames.encode(plan)) < 100_000
    status, out, _ = taskctl(daemon, "reload", "--plan")
    assert (status, f"tasks that are not shown: {LONG + MANY - 100} continues" in out) == (0, True)


def test_what_is_refused_is_told_as_refused(daemon: Daemon) -> None:
    bare = daemon.path("releases", "bare")
    status, _, err = taskctl(daemon, "deploy", bare)
    assert (status, f"cannot go on with {LONG + MANY} of the tasks" in err) == (1, True)
    assert serves(daemon) == ("r1", "r1", "r1")
    status, out, err = taskctl(daemon, "deploy", bare, "--allow-held")
    assert (status, out.split(" ")[:2]) == (0, ["bare", "serves"])
    assert len(err) < 100_000
    assert serves(daemon) == ("bare", "bare", "bare")


def test_a_deploy_by_a_submitter_touches_nothing(daemon: Daemon) -> None:
    before = os.lstat(daemon.path("current")).st_ino
    command = [sys.executable, "-c", COMMAND, "--socket", daemon.submit_socket]
    ran = subprocess.run(
        [*command, "deploy", daemon.path("releases", "r2")],
        capture_output=True,
        text=True,
        check=False,
    )
    told = "taskctl: only an operator may do this (by control.sock)\n"
    assert (ran.returncode, ran.stderr) == (1, told)
    assert os.lstat(daemon.path("current")).st_ino == before, "it was not even switched and back"
    eventually(lambda: serves(daemon) == ("r1", "r1", "r1"))

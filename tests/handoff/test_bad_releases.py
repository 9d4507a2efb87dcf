"""Bad releases of every kind: one clear sentence, exit status 1, and the old revision serves on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from support.daemon import Daemon
from support.waiting import eventually
from world import FaultyDaemon, go_on

GOOD = """
from taskd import task
from side import gate, mark

@task(queue="one")
def blocks() -> str:
    mark("begun")
    gate("go")
    return "REVISION"

@task(queue="one")
def waits(path: str, region: str = "eu") -> str:
    return f"{path} {region}"
"""

MIGRATING = GOOD.replace(
    '@task(queue="one")\ndef waits', '@task(queue="one", version=2)\ndef waits'
)

MIGRATION = """
@waits.migrate(1)
def to_2(saved):
    {body}
    return saved
"""


class Bad(NamedTuple):
    """A release by its app (or made by a function), and the sentence that refuses it."""

    sentence: str
    app: str = GOOD
    prepare: Callable[[FaultyDaemon, str], None] | None = None
    at: str | None = None  # ``prepare`` comes while the daemon is stopped at this step


def python(words: str) -> Callable[[FaultyDaemon, str], None]:
    """Releases are started by a program that does this."""

    def prepare(daemon: FaultyDaemon, _: str) -> None:
        with open(daemon.path("python"), "w", encoding="utf-8") as file:
            file.write(f'#!/bin/sh\nexec {words} "$@"\n')
        os.chmod(daemon.path("python"), 0o755)
        daemon.sections["app"] = {"python": daemon.path("python")}
        daemon.write_config()

    return prepare


def missing_python(daemon: FaultyDaemon, _: str) -> None:
    daemon.sections["app"] = {"python": "bin/python"}
    daemon.write_config()


def unknown_key(daemon: FaultyDaemon, _: str) -> None:
    daemon.sections["daemon"] = {"stop_timeuot": 5}
    daemon.write_config()


def delete(_: FaultyDaemon, release: str) -> None:
    shutil.rmtree(release)


def lose_a_file(_: FaultyDaemon, release: str) -> None:
    os.unlink(os.path.join(release, "side.py"))


def forbid(_: FaultyDaemon, release: str) -> None:
    os.chmod(os.path.join(release, "app.py"), 0)


def close(_: FaultyDaemon, release: str) -> None:
    os.mkdir(os.path.join(release, "closed"), 0)


BAD = {
    "does not import": Bad("r2 does not import: ModuleNotFoundError: No module named 'nowhere'",
                           "import nowhere\n" + GOOD),
    "imports and hangs": Bad("r2: its app is still importing after 3 s",
                             "import time\ntime.sleep(3600)\n" + GOOD),
    "has a Python that is not there": Bad("[app] python = 'bin/python': ", prepare=missing_python),
    "has a Python without taskd": Bad("ended before it came to the app; can it import taskd?",
                                      prepare=python(f"{sys.executable} -I -S")),
    "has something else for a Python": Bad("ended before it came to the app",
                                           prepare=python("/bin/false")),
    "lacks a task": Bad("there is no task 'waits'", GOOD.replace("def waits", "def waited")),
    "changed a signature": Bad("missing argument 'place'", GOOD.replace("path: str", "place: str")),
    "has a migration that raises": Bad(
        "raised KeyError", MIGRATING + MIGRATION.format(body="saved.args['nothing']")),
    "has a migration whose result cannot be saved": Bad(
        "which cannot be saved", MIGRATING + MIGRATION.format(body="saved.state['f'] = print")),
    "has a configuration with an unknown key": Bad("unknown key daemon.stop_timeuot",
                                                   prepare=unknown_key),
    "may not be read": Bad("PermissionError: [Errno 13] Permission denied", prepare=forbid),
    "has a part that may not be read": Bad("closed: Permission denied; a release is a directory",
                                           prepare=close),
    "is deleted before its app is imported": Bad("there is no release directory at",
                                                 prepare=delete, at=""),
    "is deleted while it is proven": Bad("there is no release directory at",
                                         prepare=delete, at="plan"),
    "is deleted while it is tried": Bad("there is no release directory at",
                                        prepare=delete, at="try"),
    "was written by half": Bad("r2 does not import: ", GOOD[: len(GOOD) // 2]),
    "lacks a file": Bad("No module named 'side'", prepare=lose_a_file),
}  # fmt: skip


_LESS = "-dac_override,-dac_read_search"

WITHOUT = f"--inh-caps={_LESS} --ambient-caps={_LESS} --bounding-set={_LESS}"
"""Root without the right to read everything; a container may hand rights down in any set."""


@pytest.fixture
def daemon(compiled: None, request: pytest.FixtureRequest) -> Iterator[FaultyDaemon]:
    made = FaultyDaemon(queues={"one": {"concurrency": 1}})
    made.with_releases(GOOD.replace("REVISION", "r1"), "r1")
    if os.getuid() == 0:
        python(f"setpriv {WITHOUT} {sys.executable}")(made, "")
    made.write_config()
    try:
        yield made.start()
        made.end()
    finally:
        made.clean_up()


def taskctl(daemon: Daemon, *words: str) -> subprocess.Popen[str]:
    command = "import sys; from taskd.cli.taskctl import main; sys.exit(main())"
    return subprocess.Popen(
        [sys.executable, "-c", command, "--socket", daemon.control, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("name", BAD)
def test_a_release_that(daemon: FaultyDaemon, name: str) -> None:
    bad = BAD[name]
    client = daemon.client()
    running, waiting = client.submit("blocks"), client.submit("waits", {"path": "/data"})
    daemon.reached(running.id, "begun")
    release = daemon.release("r2", bad.app)
    if "hangs" in name:
        daemon.sections["daemon"] = {"prove_timeout": 3.0}  # also to come to its app
        daemon.write_config()
    if bad.at:
        daemon.fail_at(bad.at, "stop")
    elif bad.prepare is not None:
        bad.prepare(daemon, release)
    daemon.point("r2")
    asking = taskctl(daemon, "reload")
    if bad.at and bad.prepare is not None:
        stopped = daemon.stopped()
        bad.prepare(daemon, release)
        go_on(stopped)
    _, told = asking.communicate(timeout=30)
    assert asking.returncode == 1, told
    assert bad.sentence in told
    assert "Traceback" not in told
    assert len(told.splitlines()) == 1, "one sentence"
    status = client.status()
    assert (status["revision"], status["pid"]) == ("r1", daemon.pid)
    daemon.open_gate("go")
    assert (running.result(30), waiting.result(30)) == ("r1", "/data eu")
    eventually(lambda: set(daemon.zygotes()) == {"r1"}, "nothing is left of it")
    check_next(daemon)


def check_next(daemon: FaultyDaemon) -> None:
    """A restart takes the old one, whatever the symlink says, and a good deploy goes through."""
    daemon.sections["app"], daemon.sections["daemon"] = {}, {}
    daemon.write_config()
    daemon.release("r3", GOOD.replace("REVISION", "r3"))
    assert daemon.reload("r3")["revision"] == "r3"

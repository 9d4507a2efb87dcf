"""A machine on which a release gets hardly any CPU: its deadlines are in its own time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest
from support.daemon import Daemon
from support.starving import LAST, calm, hogged
from support.waiting import eventually

WITHIN = 3.0
"""Seconds of its own time that a release has here."""

PLAIN = """
from taskd import task

@task
def runs():
    return 1
"""

STARVES = f"""
import os, time
with open(os.environ["TASKD_TEST_GATES"] + "/new", "w") as file:
    file.write(str(os.getpid()))
os.rename(file.name, file.name.replace("new", "pid"))
{LAST}
until = time.process_time() + 0.2
while time.process_time() < until:
    pass
{PLAIN}
"""

WAITS = f"""
from side import gate
gate("import")
{PLAIN}
"""


def past_the_deadline(daemon: Daemon) -> None:
    """Until more time is over on the clock than a release has; the daemon is there still."""
    until = time.monotonic() + 1.5 * WITHIN
    assert daemon.process is not None
    process = daemon.process
    eventually(lambda: process.poll() is not None or time.monotonic() > until)
    assert process.poll() is None


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    return new_daemon()


def test_a_release_that_gets_no_cpu_is_waited_for(daemon: Daemon) -> None:
    daemon.sections["daemon"] = {"prove_timeout": WITHIN}
    daemon.write_config()
    daemon.with_releases(PLAIN, "r1").start()
    daemon.with_releases(STARVES, "r2")
    with daemon.raw() as raw:
        with hogged():
            asked = raw.start("reload")
            eventually(lambda: os.path.exists(daemon.path("gates", "pid")), "it imports")
            past_the_deadline(daemon)
        with open(daemon.path("gates", "pid"), encoding="ascii") as file:
            calm(int(file.read()))
        assert raw.reply_to(asked)["revision"] == "r2"


def test_a_start_waits_longer_for_what_is_confirmed(daemon: Daemon) -> None:
    daemon.with_releases(WAITS, "r1")
    daemon.open_gate("import")
    daemon.start()
    daemon.stop()
    os.unlink(daemon.path("gates", "import"))
    daemon.sections["daemon"] = {"prove_timeout": WITHIN}
    daemon.write_config()
    daemon.process = daemon.spawn()
    past_the_deadline(daemon)
    daemon.open_gate("import")
    eventually(daemon.is_answering, "it serves")

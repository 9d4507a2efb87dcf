"""A command of the unit ends with the daemon beside which it runs, as it was answered, or as done
where the unit is stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from cli_daemon import Daemon, signal_asleep, spawn
from cli_site import REASON, refuse

BESIDE = """
import subprocess, sys, threading
from taskd.cli.verbs import main_process

main_process.LAST_WORDS = 0.0
daemon = subprocess.Popen(["sleep", "3600"])

def see_it_end():
    daemon.kill()
    for each in threading.enumerate():
        if each is not threading.current_thread():
            each.join()

with main_process.ending_with_it({"MAINPID": str(daemon.pid)}):
    if sys.argv[1] == "waiting":
        see_it_end()
see_it_end()
"""


def status(when: str) -> int:
    """Its exit status if the daemon ends while it is ``waiting``, or when it is ``answered``."""
    return subprocess.run([sys.executable, "-c", BESIDE, when], timeout=60).returncode


def test_it_ends_with_the_daemon_for_as_long_as_it_waits() -> None:
    assert status("waiting") == 3


def test_what_was_answered_is_told_however_long_that_takes() -> None:
    assert status("answered") == 0


@pytest.fixture
def reloading(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> subprocess.Popen[bytes]:
    """The unit's reload, of a release that is refused; the daemon that runs stops."""
    monkeypatch.setenv("MAINPID", str(os.getpid()))
    daemon.answers["reload"] = refuse
    daemon.answers["status"] = lambda fields: {"stopping": True}
    return spawn(daemon, "reload")


def test_a_refusal_by_a_daemon_that_is_stopped_is_held_back_for_the_units_own_signal(
    daemon: Daemon, reloading: subprocess.Popen[bytes]
) -> None:
    daemon.wait_for("status")
    signal_asleep(reloading, signal.SIGTERM)
    _, said = reloading.communicate(timeout=60)
    assert reloading.returncode == 0
    assert "the unit is being stopped" in said.decode()


def test_a_refusal_is_told_if_no_such_signal_comes(reloading: subprocess.Popen[bytes]) -> None:
    _, said = reloading.communicate(timeout=60)
    assert reloading.returncode == 1
    assert REASON in said.decode()

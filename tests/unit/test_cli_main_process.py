"""A command of the unit ends with the daemon beside which it runs, or as it was answered."""

from __future__ import annotations

import subprocess
import sys

BESIDE = """
import subprocess, sys, threading
from taskd.cli import main_process

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

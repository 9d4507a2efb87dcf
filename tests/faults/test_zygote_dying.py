"""A zygote that keeps dying while tasks wait for it: started again ever later, and said."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable

from looking import problems
from support.daemon import Daemon
from support.waiting import eventually

APP = """
import os
from taskd import task
from side import is_open

if is_open("broken"):
    os._exit(7)

@task
def quick() -> str:
    return "done"
"""


DAY = 24 * 3600


def starts(daemon: Daemon) -> list[int]:
    """When its zygotes were started, in seconds of the day."""
    found = re.findall(r"^(\d+):(\d+):(\d+) zygote started", daemon.log(), re.MULTILINE)
    return [int(h) * 3600 + int(m) * 60 + int(s) for h, m, s in found]


def test_a_zygote_that_keeps_dying_is_started_ever_later_and_status_says_why(
    new_daemon: Callable[..., Daemon],
) -> None:
    daemon = new_daemon()
    daemon.release("r1", APP)
    daemon.point("r1")
    daemon.start()
    daemon.open_gate("broken")
    os.kill(daemon.zygotes()["r1"], signal.SIGKILL)
    with daemon.client() as client:
        task = client.submit("quick")
        for wait in (2, 4):
            words = (
                "the zygote of r1 does not stay up: its process ended by itself with exit status "
                f"7; it is started again {wait} s after that"
            )
            eventually(lambda words=words: words in problems(daemon))  # type: ignore[misc]
            client.submit("quick")  # who waits for it does not hurry it
        os.unlink(daemon.path("gates", "broken"))
        _, first, second = starts(daemon)
        assert (second - first) % DAY >= 2, "it was waited for"
        assert task.result(30) == "done"

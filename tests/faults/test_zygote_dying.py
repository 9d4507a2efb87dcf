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


def pause(daemon: Daemon) -> int:
    """Seconds that status says it is waited before the next start; 0 if it says nothing of it."""
    words = (
        "the zygote of r1 does not stay up: its process ended by itself with exit status 7; it is "
        r"started again (\d+) s after that"
    )
    found = (re.fullmatch(words, problem) for problem in problems(daemon))
    return max((int(each[1]) for each in found if each), default=0)


def test_a_zygote_that_keeps_dying_is_started_ever_later_and_status_says_why(
    new_daemon: Callable[..., Daemon],
) -> None:
    daemon = new_daemon()
    daemon.with_releases(APP, "r1").start()
    daemon.open_gate("broken")
    os.kill(daemon.zygotes()["r1"], signal.SIGKILL)
    with daemon.client() as client:
        task = client.submit("quick")
        for wait in (2, 4):  # or longer, where we have missed that
            eventually(lambda wait=wait: pause(daemon) >= wait)  # type: ignore[misc]
            client.submit("quick")  # who waits for it does not hurry it
        os.unlink(daemon.path("gates", "broken"))
        first, second = starts(daemon)[1:3]
        assert (second - first) % DAY >= 2, "it was waited for"
        assert task.result(60) == "done"

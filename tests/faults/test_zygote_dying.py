"""A zygote that keeps dying while tasks wait for it: started again ever later, and said."""

from __future__ import annotations

import os
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
        words = (
            "the zygote of r1 does not stay up: its process ended by itself with exit status 7; "
            "it is started again 4 s after that"
        )
        eventually(lambda: words in problems(daemon))
        starts = daemon.log().count("zygote started")
        client.submit("quick")  # who waits for it does not hurry it
        client.submit("quick")
        assert words in problems(daemon)
        assert daemon.log().count("zygote started") == starts
        os.unlink(daemon.path("gates", "broken"))
        assert task.result(30) == "done"

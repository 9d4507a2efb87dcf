"""A deploy of a revision that has outlived the master, whose zygote has yet to connect again."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

from support.daemon import Daemon
from support.waiting import eventually

APP = """
from side import gate, mark
from taskd import task

@task
def work() -> str:
    mark("begin")
    gate("go")
    return "REVISION"
"""


def test_a_rollback_waits_for_its_zygote_and_asks_it_then(
    new_daemon: Callable[..., Daemon],
) -> None:
    """What was asked before it has connected has not reached it."""
    daemon = new_daemon().with_releases(APP, "r1", "r2").start()
    with daemon.client() as client:
        task = client.submit("work")
        daemon.reached(task.id, "begin")
        daemon.reload("r2")
    zygote = daemon.zygotes()["r1"]
    os.kill(zygote, signal.SIGSTOP)
    try:
        daemon.kill()
        daemon.start()
        done: list[object] = []
        rollback = threading.Thread(target=lambda: done.append(daemon.said("rollback")))
        before = daemon.log().count(" deploy ")
        rollback.start()
        eventually(lambda: daemon.log().count(" deploy ") > before, "the rollback has begun")
    finally:
        os.kill(zygote, signal.SIGCONT)
    rollback.join()
    assert len(done) == 1, "it was done"
    daemon.open_gate("go")
    with daemon.client() as client:
        assert client.handle(task.id).result(30) == "r1"
        assert client.submit("work").result(30) == "r1"

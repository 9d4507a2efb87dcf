"""What a start cannot settle yet: a later sweep does it, in the same daemon."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from support import processes
from support.daemon import Daemon
from support.waiting import eventually

APP = """
from taskd import task
from side import mark

@task
def short() -> int:
    mark("done")
    return 1
"""


def outlived(daemon: Daemon) -> tuple[int, str]:
    """An idle worker that outlived the start of the next daemon, stopped, and its slot's path."""
    daemon.with_releases(APP, "r1").start()
    task = daemon.client().submit("short")
    assert task.result(30) == 1
    idle = daemon.reached(task.id, "done").pid
    slot = daemon.slot(idle)
    os.kill(idle, signal.SIGSTOP)
    daemon.kill()
    daemon.start()
    assert os.path.exists(slot), "it may be of use as long as that worker lives"
    return idle, slot


def let_go(idle: int) -> None:
    os.kill(idle, signal.SIGCONT)
    eventually(lambda: not processes.is_alive(idle), "it leaves")


def test_the_slot_of_an_idle_worker_that_outlived_the_start_goes_without_another(
    new_daemon: Callable[..., Daemon],
) -> None:
    """It leaves once it sees that its master is gone, and its slot with it to be looked at."""
    daemon = new_daemon()
    daemon.constants["taskd.master.recovery.unowned.SWEEP_EVERY"] = 0.2
    idle, slot = outlived(daemon)
    let_go(idle)
    eventually(lambda: not os.path.exists(slot), "nobody is left whom it could tell of")


def test_a_stop_before_the_next_sweep_leaves_no_such_slot(
    new_daemon: Callable[..., Daemon],
) -> None:
    daemon = new_daemon()
    idle, slot = outlived(daemon)
    let_go(idle)
    assert daemon.stop() == 0
    assert not os.path.exists(slot)

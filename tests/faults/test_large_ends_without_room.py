"""Large states that find no room in the store: they stay in their slots, and nobody waits for them
in vain."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
from support.apps import HOLDS
from support.mounts import MIB, Mounted
from support.waiting import eventually

STATE = MIB

TASKS = 5


@pytest.fixture
def full(mounted: Callable[..., Mounted]) -> tuple[Mounted, list[int]]:
    """A daemon whose state directory is full, whose workers have died, and whose intake takes one
    state at a time; and the tasks."""
    daemon = mounted(daemon={"stop_timeout": "5s"})
    daemon.constants = {"taskd.master.fleet.intake.BOUND": 1}
    daemon.with_releases(HOLDS, "r0")
    daemon.small("state", 4 * TASKS * STATE)
    daemon.start()
    with daemon.client() as client:
        tasks = [int(client.submit("holds", {"size": STATE}).id) for _ in range(TASKS)]
    pids = [daemon.reached(task, "saved").pid for task in tasks]
    daemon.fill("state")
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    eventually(
        lambda: "its end cannot be recorded" in daemon.log() or "recorded yet" in daemon.log()
    )
    return daemon, tasks


def check_all_go_on(daemon: Mounted, tasks: list[int]) -> None:
    for task in tasks:
        daemon.reached(task, "saved", 2)
    daemon.open_gate("go")
    with daemon.client() as client:
        assert [client.handle(task).result(60) for task in tasks] == [STATE] * TASKS


def test_they_are_recorded_once_there_is_room(full: tuple[Mounted, list[int]]) -> None:
    daemon, tasks = full
    daemon.make_room("state")
    check_all_go_on(daemon, tasks)


def test_a_stop_does_not_wait_for_it(full: tuple[Mounted, list[int]]) -> None:
    daemon, tasks = full
    assert daemon.stop(60) == 0
    daemon.make_room("state")
    daemon.start()
    check_all_go_on(daemon, tasks)

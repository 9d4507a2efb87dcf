"""A start after a crash, with few descriptors: it says so, or adopts all; nothing is lost to it."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from collections.abc import Callable
from typing import Any

import pytest
from support.daemon import Daemon, repeated
from support.waiting import eventually

APP = """
from taskd import task
from side import attempt, gate, mark

@task
def loop(ctx) -> int:
    for n in ctx.each("items", range(4)):
        if n == 2:
            gate("go")
        mark(n)
    return 4
"""

TASKS = 3


class Limited(Daemon):
    """With at most ``most`` descriptors at its start."""

    most = 20_000

    def command(self, *arguments: str) -> list[str]:
        return ["prlimit", f"--nofile={self.most}:20000", *super().command(*arguments)]


@pytest.mark.parametrize("most", range(14, 26, 2))
def test_a_start_with_few_descriptors_says_so_or_adopts_everybody(
    new_daemon: Callable[..., Any], most: int
) -> None:
    daemon: Limited = new_daemon(kind=Limited)
    daemon.release("r1", APP)
    daemon.point("r1")
    daemon.start()
    with daemon.client() as client:
        tasks = [client.submit("loop").id for _ in range(TASKS)]
        pids = [daemon.reached(task, "1").pid for task in tasks]
    daemon.kill()
    os.kill(pids[0], signal.SIGKILL)  # one of them is dead, and that is to be found out
    daemon.most, before = most, len(daemon.log())
    process = daemon.spawn()

    def decided() -> bool:
        return process.poll() is not None or "ready revision" in daemon.log()[before:]

    with contextlib.suppress(AssertionError):  # or it waits for a descriptor, at its very start
        eventually(decided, within=5)
    if process.poll() is not None:
        assert process.returncode == 1
        assert "taskd: " in daemon.log()[before:]
        daemon.most = Limited.most
        daemon.start()
    else:
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (20_000, 20_000))
        daemon.process = process
        eventually(daemon._answers, "it goes on once it has descriptors")
    daemon.open_gate("go")
    with daemon.client() as client:
        assert [client.handle(task).result(60) for task in tasks] == [4] * TASKS
    assert set(repeated(daemon.effects())) <= {(tasks[0], "1")}

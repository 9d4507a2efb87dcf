"""A start after a crash, with few descriptors: it says so, or adopts all; nothing is lost to it."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from short import no_descriptor_left
from support import processes
from support.daemon import Daemon, repeated
from support.waiting import eventually

APP = """
import os, subprocess
from taskd import task
from side import attempt, gate, mark

@task
def loop(ctx) -> int:
    for n in ctx.each("items", range(4)):
        if n == 2:
            gate("go")
        mark(n)
    return 4

@task
def leaves_one_behind(ctx) -> str:
    path = os.path.join(ctx.scratch, "pid")
    if attempt() == 1:
        child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        with open(path, "w") as file:
            file.write(str(child.pid))
        mark("begun")
        gate("never")
    with open(path) as file:
        pid = file.read()
    try:
        with open(f"/proc/{pid}/stat") as file:
            dead = file.read().split(") ")[1][0] in "ZX"  # and nobody has reaped it
    except FileNotFoundError:
        dead = True
    return "alone" if dead else "overlaps"
"""

TASKS = 3


class Limited(Daemon):
    """With at most ``most`` descriptors at its start."""

    most, hard = 19_999, 20_000

    def command(self, *arguments: str) -> list[str]:
        return ["prlimit", f"--nofile={self.most}:{self.hard}", *super().command(*arguments)]

    def start_with(self, most: int) -> None:
        """It serves in the end: with so few, once it gets more, or when it is started again."""
        self.most, before = most, len(self.log())
        records = set(os.listdir(self.path("state", "zygotes")))
        self.process = process = self.spawn()
        self.most = Limited.most

        def is_decided() -> bool:
            return process.poll() is not None or "ready revision" in self.log()[before:]

        with contextlib.suppress(AssertionError):  # or it waits for a descriptor, at its very start
            eventually(is_decided, within=3)
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (Limited.most, Limited.hard))
        eventually(
            lambda: process.poll() is not None or self.is_answering(),
            "it goes on once it has descriptors, unless it has given up by then",
        )
        if process.poll() is not None:
            assert process.returncode == 1
            assert "taskd: " in self.log()[before:]
            assert records <= set(os.listdir(self.path("state", "zygotes"))), "nothing is dropped"
            self.start()


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Limited:
    made = new_daemon(kind=Limited)
    assert isinstance(made, Limited)
    made.with_releases(APP, "r1").start()
    return made


@pytest.mark.parametrize("most", range(14, 26, 2))
def test_a_start_with_few_descriptors_says_so_or_adopts_everybody(
    daemon: Limited, most: int
) -> None:
    with daemon.client() as client:
        tasks = [client.submit("loop").id for _ in range(TASKS)]
        pids = [daemon.reached(task, "1").pid for task in tasks]
    daemon.kill()
    os.kill(pids[0], signal.SIGKILL)  # one of them is dead, and that is to be found out
    daemon.start_with(most)
    daemon.open_gate("go")
    with daemon.client() as client:
        assert [client.handle(task).result(60) for task in tasks] == [4] * TASKS
    assert set(repeated(daemon.effects())) <= {(tasks[0], "1")}


@pytest.mark.parametrize("most", range(17, 23))
def test_a_start_with_few_descriptors_finds_who_is_dead_and_what_he_left(
    daemon: Limited, most: int
) -> None:
    with daemon.client() as client:
        loop, other = client.submit("loop").id, client.submit("leaves_one_behind").id
        pids = [daemon.reached(loop, "1").pid, daemon.reached(other, "begun").pid]
    zygote = daemon.zygotes()["r1"]
    daemon.kill(signal.SIGSTOP)
    for pid in (zygote, *pids):
        os.kill(pid, signal.SIGKILL)
    daemon.kill()
    daemon.start_with(most)
    daemon.open_gate("go")
    with daemon.client() as client:
        assert client.handle(loop).result(60) == 4
        assert client.handle(other).result(60) == "alone"


def test_the_death_of_who_was_adopted_is_not_lost_for_want_of_a_descriptor(daemon: Limited) -> None:
    """They are not our children: what their pidfds told us is told once."""
    with daemon.client() as client:
        task = client.submit("leaves_one_behind").id
        pid = daemon.reached(task, "begun").pid
        zygote = daemon.zygotes()["r1"]
        daemon.kill()
        daemon.start()
        with no_descriptor_left(daemon.pid), ExitStack() as crowd:
            for _ in range(50):  # who wait in the backlog, and take each descriptor that is freed
                sock = crowd.enter_context(socket.socket(socket.AF_UNIX))
                sock.connect(daemon.control)
            os.kill(zygote, signal.SIGKILL)
            eventually(lambda: not processes.is_alive(zygote))
            os.kill(pid, signal.SIGKILL)
            eventually(lambda: not processes.is_alive(pid))
            eventually(lambda: "a step failed and is tried again" in daemon.log())
        assert client.handle(task).result(60) == "alone"

"""The run that is recorded: every way in which a task saves, ends, moves and is taken up again.

What each task must give in the end stands beside it, so that any state of the disk can be judged.
"""

from __future__ import annotations

import os
import signal
from typing import Any, NamedTuple

import pytest
import tracing
from recording import Recording
from support.daemon import Daemon
from support.waiting import eventually

import taskd
import taskd.errors

APP = """
import os
import time
from taskd import task
from side import attempt, gate, mark, until_asked

def made(n):
    mark(f"ran:{n}")
    return n * n

@task(on_deploy="checkpoint")
def steps(ctx, n: int, pad: str = "") -> list:
    found = []
    for k in range(n):
        found.append(ctx.step(f"s{k}", made, k))
        mark(f"kept:{k}")
        if attempt() == 1:
            time.sleep(0.05)
    return found

@task(on_deploy="checkpoint")
def loop(ctx, items: int, pause: float = 0.0, weight: int = 0, wait: int = -1) -> int:
    for n in ctx.each("items", range(items)):
        mark(f"item:{n}")
        if n == wait and attempt() == 1:
            gate("never")
        if pause and attempt() == 1:
            time.sleep(pause)
        if n % 50 == 49:  # before the state changes: the body may run again after its step
            ctx.step("every fifty", len, "x" * n)
        if weight:
            ctx.state["fill"] = chr(65 + n % 26) * weight
        ctx.state["sum"] = ctx.state.get("sum", 0) + n
    return ctx.state["sum"]

@task
def sleeper(ctx) -> str:
    ctx.step("s0", made, 0)
    mark("kept:0")
    ctx.sleep(1.6, "nap")
    return "woke"

@task(retries=3)
def flaky(ctx) -> str:
    ctx.step("s0", made, 0)
    mark("kept:0")
    if attempt() == 1:
        raise ValueError("the first time")
    return "done"

@task
def waits(ctx) -> str:
    mark("begun")
    if attempt() == 1:
        until_asked(ctx)
        ctx.checkpoint()
    return "not asked"
"""


STATE = "lib/taskd"
"""The state directory, from the root of the disk."""


class Wanted(NamedTuple):
    """A task and what becomes of it. ``state``: in the end, whatever happens between."""

    name: str
    args: dict[str, Any]
    result: Any = None
    state: str = "succeeded"


WANTED = [
    Wanted("steps", {"n": 6}, [k * k for k in range(6)]),
    Wanted("steps", {"n": 3, "pad": "p" * 90_000}, [0, 1, 4]),
    Wanted("loop", {"items": 300, "pause": 0.01}, sum(range(300))),
    Wanted("loop", {"items": 120}, sum(range(120))),
    Wanted("loop", {"items": 70, "weight": 25_000}, sum(range(70))),
    Wanted("loop", {"items": 60, "wait": 57}, sum(range(60))),  # its worker is killed at 57
    Wanted("sleeper", {}, "woke"),
    Wanted("flaky", {}, "done"),
    Wanted("waits", {}, None, "cancelled"),
    Wanted("steps", {"n": 2}, None, "later"),  # not for a day
    Wanted("steps", {"n": 2}, None, "cancelled"),  # while it waits
]


BAD = "raise ImportError('this release is broken')"

AFTER_DRAIN = "after_drain"
"""The item that the hook writes to the effects, of task 0."""


class Traced(Daemon):
    """A daemon all of whose system calls on files and sockets are recorded. Its state directory
    and the one above it are its own to make, on the disk that is cut off."""

    @property
    def disk(self) -> str:
        return self.path("disk")

    def environment(self) -> dict[str, str]:
        return super().environment() | {"STATE_DIRECTORY": os.path.join(self.disk, STATE)}

    def command(self, *arguments: str) -> list[str]:
        return [*tracing.command(self.path("trace")), *super().command(*arguments)]


class Run(NamedTuple):
    """A recording, and the ids of the tasks of WANTED in it."""

    recording: Recording
    tasks: list[int]
    daemon: Traced


def traced() -> Traced:
    """A daemon to be recorded, not yet started."""
    daemon = Traced(queues={"default": {"concurrency": 16}})
    hook = f"echo 0 {AFTER_DRAIN} 0 r2 $$ >> {daemon.path('effects')}"
    daemon.sections["hooks"] = {"after_drain": ["/bin/sh", "-c", hook]}
    daemon.write_config()
    os.mkdir(daemon.disk)
    for name, source in (("r1", APP), ("r2", APP), ("bad", BAD)):
        daemon.release(name, source)
    daemon.point("r1")
    return daemon


def record(daemon: Traced) -> Run:
    """Do all of it once, with deploys in its middle, and end the daemon as a stop does."""
    daemon.start()
    with daemon.client(timeout=120) as client:
        tasks = [_submit(client, wanted) for wanted in WANTED]
        worker = daemon.reached(tasks[5], "item:57").pid
        os.kill(worker, signal.SIGKILL)
        daemon.reached(tasks[8], "begun")
        for number, wanted in zip(tasks, WANTED, strict=True):
            if wanted.state == "cancelled":
                client.handle(number).cancel()
        daemon.reached(tasks[2], "item:90")
        with pytest.raises(taskd.errors.DeployRefused):
            daemon.reload("bad")
        daemon.reload("r2")
        _wait(client, tasks)
        daemon.reached(0, AFTER_DRAIN)
    assert daemon.stop() == 0
    eventually(lambda: not daemon.processes(), "the recorder has ended, too")
    trace, effects = daemon.path("trace"), daemon.path("effects")
    return Run(Recording(trace, daemon.disk, effects), tasks, daemon)


def _submit(client: taskd.Client, wanted: Wanted) -> int:
    delay = 86400 if wanted.name == "steps" and wanted.result is None else None
    return client.submit(wanted.name, wanted.args, delay=delay).id


def _wait(client: taskd.Client, tasks: list[int]) -> None:
    """Until everything has ended that is to end, as its clients are told."""
    for number, wanted in zip(tasks, WANTED, strict=True):
        handle = client.handle(number)
        if wanted.state == "later":
            assert handle.status().state == "scheduled"
            continue
        assert handle.wait(60).state == wanted.state
        if wanted.state == "succeeded":
            assert handle.result(60) == wanted.result
        assert list(handle.follow())

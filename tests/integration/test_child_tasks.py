"""``ctx.submit`` with a real daemon: over deploys and kills, and a cancel that goes down."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
from support.daemon import Daemon
from support.waiting import eventually

APP = """
from taskd import task
from side import is_open, mark
import time

@task
def leaf(ctx, n: int) -> str:
    mark(f"leaf{n}")
    while not is_open("leaves"):
        ctx.checkpoint()
        time.sleep(0.005)
    return str(n) + " " + "REVISION"

@task(on_deploy="checkpoint", queue="parents")
def parent(ctx, count: int) -> list:
    made = []
    for n in range(count):
        made.append(ctx.submit(leaf.using(name=f"leaf-{n}"), n).id)
        mark(f"made{n}")
        while not is_open(f"go{n}"):
            ctx.checkpoint()
            time.sleep(0.005)
    return made

@task(queue="parents")
async def amid(ctx, count: int) -> int:
    return (await ctx.submit(parent, count)).id

@task(queue="parents")
def twice(ctx) -> None:
    ctx.submit(leaf, 1)
    ctx.submit(leaf, 2)
"""


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    return new_daemon().with_releases(APP, "r1", "r2").start()


def test_a_parent_submits_each_child_once_whatever_ends_its_attempts(daemon: Daemon) -> None:
    with daemon.client() as client:
        parent = client.submit("parent", {"count": 4})
        daemon.reached(parent.id, "made0", 1)
        daemon.reload("r2")  # the parent moves
        moved = daemon.reached(parent.id, "made0", 2)
        os.kill(moved.pid, signal.SIGKILL)
        daemon.open_gate("go0")
        resumed = daemon.reached(parent.id, "made1", 3)
        daemon.kill()
        os.kill(resumed.pid, signal.SIGKILL)
        daemon.start()
        daemon.reached(parent.id, "made1", 4)
        client.rollback()
        for n in range(1, 4):
            daemon.open_gate(f"go{n}")
        daemon.open_gate("leaves")
        children = parent.result(30)
        assert len(set(children)) == 4
        found = [client.handle(child).wait(30) for child in children]
        assert [each.state for each in found] == ["succeeded"] * 4
        assert {each.parent for each in found} == {parent.id}
        assert f"parent     {parent.id}\n" in daemon.said("show", str(children[0]))
        names = [each.name for each in client.tasks(name="leaf")]
        assert len(names) == 4
        for n, child in enumerate(children):
            assert daemon.items(child) == [f"leaf{n}"]


def test_a_cancel_goes_down_to_grandchildren_that_run(daemon: Daemon) -> None:
    with daemon.client() as client:
        top = client.submit("amid", {"count": 2})
        below = client.handle(top.result(30))
        daemon.reached(below.id, "made0")
        (leaf,) = client.tasks(name="leaf")
        daemon.reached(leaf.id, "leaf0")
        below.cancel()
        for task in (below, client.handle(leaf.id)):
            assert task.wait(30).state == "cancelled"


def test_a_name_stands_for_one_child(daemon: Daemon) -> None:
    with daemon.client() as client:
        info = client.submit("twice").wait(30)
        assert "two children are named 'leaf'" in str(info.reason)
        daemon.open_gate("leaves")
        eventually(
            lambda: [each.state for each in client.tasks(name="leaf")] == ["succeeded"],
            "the first has run",
        )

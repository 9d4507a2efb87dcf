"""kill -9 of a worker, wherever its task is: the task continues from its last saved point."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable

import pytest
from support.daemon import Daemon
from support.reasons import told
from support.waiting import eventually

import taskd
from taskd.client.blocking import TaskHandle

APP = """
import os
from taskd import task
from side import attempt, gate, mark

def here(kills, place):
    mark(place)
    if attempt() <= kills:
        gate("never")  # the test kills the worker here
    return place

def done(name):
    mark(name)
    return name

@task
def in_a_step(ctx, kills: int) -> list:
    first = ctx.step("first", done, "first")
    second = ctx.step("second", here, kills, "here")
    return [first, second, ctx.step("third", done, "third")]

@task
def in_a_loop(ctx, kills: int) -> list:
    first = ctx.step("first", done, "first")
    for n in ctx.each("items", range(5)):
        here(kills, "here") if n == 2 else mark(n)
        ctx.state["seen"] = [*ctx.state.get("seen", []), n]
    return [first, ctx.state["seen"]]

@task
def in_an_inner_loop(ctx, kills: int) -> list:
    for n in ctx.each("outer", ["a", "b", "c"]):
        ctx.step("head", done, f"head-{n}")
        for m in ctx.each("inner", range(3)):
            here(kills, "here") if (n, m) == ("b", 1) else mark(f"{n}-{m}")
            ctx.state["seen"] = [*ctx.state.get("seen", []), f"{n}{m}"]
    return ctx.state["seen"]

@task
def plain(kills: int) -> str:
    mark("begin")
    here(kills, "here")
    return "whole"

@task
async def later(ctx, kills: int) -> list:
    first = await ctx.step("first", done, "first")
    async for n in ctx.each("items", range(5)):
        here(kills, "here") if n == 2 else mark(n)
        ctx.state["seen"] = [*ctx.state.get("seen", []), n]
    return [first, ctx.state["seen"]]

@task
def ends_itself(how: str) -> str:
    mark("begin")
    if attempt() < 2:
        import ctypes
        {"segfault": lambda: ctypes.string_at(0), "exit": lambda: os._exit(3)}[how]()
    return "whole"
"""

RESULTS = {
    "in_a_step": ["first", "here", "third"],
    "in_a_loop": ["first", [0, 1, 2, 3, 4]],
    "in_an_inner_loop": [f"{n}{m}" for n in "abc" for m in range(3)],
    "plain": "whole",
    "later": ["first", [0, 1, 2, 3, 4]],
}

DONE = {
    "in_a_step": {"first", "here", "third"},
    "in_a_loop": {"first", "0", "1", "here", "3", "4"},
    "in_an_inner_loop": {f"{n}-{m}" for n in "abc" for m in range(3)}
    - {"b-1"} | {"here", "head-a", "head-b", "head-c"},
    "plain": {"begin", "here"},
    "later": {"first", "0", "1", "here", "3", "4"},
}  # fmt: skip


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    made = new_daemon()
    return made.with_releases(APP, "r1").start()


def kill_here(daemon: Daemon, task: TaskHandle, attempt: int = 1) -> int:
    """Kill the worker of that attempt once it is at the place; its pid."""
    pid = daemon.reached(task.id, "here", attempt).pid
    os.kill(pid, signal.SIGKILL)
    return pid


@pytest.mark.parametrize("name", sorted(RESULTS))
def test_a_killed_task_continues_on_another_worker(daemon: Daemon, name: str) -> None:
    task = daemon.client().submit(name, {"kills": 1})
    first = kill_here(daemon, task)
    assert task.result(30) == RESULTS[name]
    again = {"plain": {"begin", "here"}}.get(name, {"here"})
    assert Counter(daemon.items(task.id)) == {i: 1 + (i in again) for i in DONE[name]}
    assert daemon.reached(task.id, "here", 2).pid != first
    events = list(task.follow())
    assert [(e["state"], e["attempt"]) for e in events] == [
        ("queued", 0), ("running", 1), ("queued", 1), ("running", 2), ("succeeded", 2),
    ]  # fmt: skip
    assert told(events[2]["reason"]) == "crashed: its process was killed by SIGKILL"


@pytest.mark.parametrize("name", ["in_an_inner_loop", "plain"])
def test_three_kills_at_the_same_place_hold_the_task_until_it_is_retried(
    daemon: Daemon, name: str
) -> None:
    client = daemon.client()
    task = client.submit(name, {"kills": 3})
    for attempt in (1, 2, 3):
        kill_here(daemon, task, attempt)
    held = task.wait(30)
    assert (held.state, held.attempt) == ("held", 3)
    assert told(held.reason) == (
        "died 3 times at the same place; the last time its process was killed by SIGKILL"
    )
    with pytest.raises(taskd.TaskHeld, match="died 3 times"):
        task.result(30)
    assert client.retry(task.id) == {"state": "queued"}
    assert task.result(30) == RESULTS[name]
    assert task.status().attempt == 4
    assert Counter(daemon.items(task.id))["here"] == 4


def test_kills_at_different_places_do_not_add_up(daemon: Daemon) -> None:
    """Each attempt gets on by an item before it is killed: nothing is ever held."""
    daemon.release("r2", APP.replace('here(kills, "here") if n == 2 else mark(n)', "here_(n)")
                   + "def here_(n):\n    here(n + 1, f'at-{n}')\n")  # fmt: skip
    daemon.reload("r2")
    task = daemon.client().submit("in_a_loop", {"kills": 0})
    for n in range(5):
        os.kill(daemon.reached(task.id, f"at-{n}", n + 1).pid, signal.SIGKILL)
    assert task.result(30) == RESULTS["in_a_loop"]
    assert task.status().attempt == 6


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("segfault", "crashed: its process was killed by SIGSEGV"),
        ("exit", "crashed: its process ended by itself with exit status 3"),
    ],
)
def test_a_worker_that_ends_itself_is_told_with_its_true_status(
    daemon: Daemon, how: str, why: str
) -> None:
    task = daemon.client().submit("ends_itself", {"how": how})
    assert task.result(30) == "whole"
    assert [e["reason"] for e in task.follow() if e["reason"]] == [why]
    assert daemon.items(task.id) == ["begin", "begin"]


def test_many_workers_killed_at_once_lose_and_repeat_nothing_else(daemon: Daemon) -> None:
    client = daemon.client()
    tasks = [client.submit(name, {"kills": 1}) for name in ["in_a_loop", "later"] * 4]
    pids = [daemon.reached(task.id, "here").pid for task in tasks]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for task in tasks:
        assert task.result(30) == RESULTS["in_a_loop"]
        assert Counter(daemon.items(task.id)) == {
            item: 1 + (item == "here") for item in DONE["in_a_loop"]
        }


def test_an_idle_worker_that_is_killed_is_replaced(daemon: Daemon) -> None:
    client = daemon.client()
    assert client.submit("in_a_loop", {"kills": 0}).result(30) == RESULTS["in_a_loop"]
    (idle,) = {effect.pid for effect in daemon.effects()}
    slot = daemon.slot(idle)
    os.kill(idle, signal.SIGKILL)
    assert client.submit("in_a_loop", {"kills": 0}).result(30) == RESULTS["in_a_loop"]
    eventually(lambda: idle not in daemon.processes(), "it is reaped")
    eventually(lambda: not os.path.exists(slot), "its slot goes too")

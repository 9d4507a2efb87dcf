"""A hundred tasks through twenty deploys: nothing lost, nothing twice, nobody disconnected."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from support.daemon import Daemon, repeated
from support.raw import Raw
from support.waiting import eventually

from taskd.client.blocking import TaskHandle

TASKS, RELOADS = 100, 20

APP = """
import asyncio, time
from taskd import task
from side import is_open, mark

PAUSE = 0.25  # between items: none of the tasks ends before the last deploy has begun

def rows(cursor, count):
    for number in range(cursor or 0, count):
        yield number + 1, number

def cube(number):
    mark(f"cube-{number}")
    return number ** 3

def pause(last):
    if not last or not is_open("end"):
        time.sleep(PAUSE)
    while last and not is_open("end"):
        time.sleep(PAUSE)

def plain(ctx, seed, count):
    first = ctx.step("first", cube, seed)
    for n in ctx.each("rows", rows, count):
        mark(f"rows-{n}")
        pause(n == count - 1)
        ctx.state["sum"] = ctx.state.get("sum", 0) + n * seed
    return [first, ctx.state["sum"], ctx.step("last", cube, seed + 1)]

def nested(ctx, seed, count):
    for n in ctx.each("outer", range(count)):
        square = ctx.step("square", cube, n)
        for m in ctx.each("inner", [10, 20, 30]):
            mark(f"inner-{n}-{m}")
            ctx.state["sum"] = ctx.state.get("sum", 0) + m * seed + square
        pause(n == count - 1)
    return ctx.state["sum"]

async def cube_later(number):
    await asyncio.sleep(0.001)
    mark(f"cube-{number}")
    return number ** 3

async def later(ctx, seed, count):
    first = await ctx.step("first", cube_later, seed)
    async for n in ctx.each("rows", rows, count):
        mark(f"rows-{n}")
        while n == count - 1 and not is_open("end"):
            await asyncio.sleep(PAUSE)
        await asyncio.sleep(PAUSE)
        ctx.state["sum"] = ctx.state.get("sum", 0) + n * seed
    return [first, ctx.state["sum"]]

for function in (plain, nested, later):
    for on_deploy in ("finish", "checkpoint"):
        name = f"{function.__name__}-{on_deploy}"
        task(name=name, queue="many", on_deploy=on_deploy)(function)

@task(queue="many")
def last_one():
    return "REVISION"
"""


def expected(name: str, seed: int, count: int) -> tuple[Any, list[str]]:
    """The result, and the items that must be done once each, computed without any daemon."""
    rows = [f"rows-{n}" for n in range(count)]
    total = sum(n * seed for n in range(count))
    kind = name.split("-")[0]
    if kind == "plain":
        cubes = [f"cube-{seed}", f"cube-{seed + 1}"]
        return [seed**3, total, (seed + 1) ** 3], cubes + rows
    if kind == "later":
        return [seed**3, total], [f"cube-{seed}", *rows]
    inner = [f"inner-{n}-{m}" for n in range(count) for m in (10, 20, 30)]
    total = sum(m * seed + n**3 for n in range(count) for m in (10, 20, 30))
    return total, [*inner, *(f"cube-{n}" for n in range(count))]


class Pings(threading.Thread):
    """Keeps one raw connection busy all the time; ``failure`` is how it ended, if it did."""

    def __init__(self, raw: Raw, task: int) -> None:
        super().__init__(daemon=True)
        self.raw, self.task = raw, task
        self.done = threading.Event()
        self.count = 0
        self.failure: Exception | None = None

    def run(self) -> None:
        try:
            while not self.done.is_set():
                shown = self.raw.ask("show", task=self.task)
                assert shown["task"]["id"] == self.task
                self.count += 1
        except Exception as error:  # told to the test, which fails with it
            self.failure = error


class Followed(threading.Thread):
    """One ``follow`` stream over several tasks, on one raw connection, to its end."""

    def __init__(self, daemon: Daemon, tasks: list[int]) -> None:
        super().__init__(daemon=True)
        self.tasks = tasks
        self.raw = daemon.raw()
        self.raw.socket.settimeout(280)  # nothing happens to its tasks while the deploys go on
        self.stream = self.raw.start("follow", tasks=tasks, progress=True)
        self.raw.reply_to(self.stream)
        self.items: list[dict[str, Any]] = []

    def run(self) -> None:
        self.items = self.raw.items(self.stream)
        self.raw.close()

    @property
    def numbers(self) -> list[int]:
        return [item["event"] for item in self.items if "event" in item]


def history(daemon: Daemon, tasks: list[int]) -> list[int]:
    """The numbers of all the tasks' events, fetched when all is over."""
    with daemon.raw() as raw:
        stream = raw.start("follow", tasks=tasks)
        raw.reply_to(stream)
        return [item["event"] for item in raw.items(stream)]


def submit_all(daemon: Daemon) -> list[tuple[TaskHandle, Any, list[str]]]:
    names = [f"{kind}-{how}" for kind in ("plain", "nested", "later")
             for how in ("finish", "checkpoint")]  # fmt: skip
    found = []
    with daemon.client() as client:
        for seed in range(TASKS):
            name, count = names[seed % len(names)], 20 + seed % 7
            handle = client.submit(name, {"seed": seed, "count": count})
            found.append((handle, *expected(name, seed, count)))
    return found


STORE = (2, 3)
"""Descriptors of the store's file: for the one that writes, the one that reads, and perhaps the one
that looked at all of it at the start: SQLite keeps that for later, since closing it would drop this
process's locks (its "How To Corrupt" says why)."""


def quiet_descriptors(daemon: Daemon, workers: int) -> Counter[str]:
    """The master's descriptors once that many workers are connected and no other client is."""

    def look() -> Counter[str] | None:
        with daemon.raw() as raw:
            found = raw.ask("revisions")["revisions"]
            now = daemon.descriptors()
        if sum(each["workers"] for each in found) != workers or len(found) != 1:
            return None
        if (
            now[slot_name(daemon)] != workers
            or now.pop(daemon.path("state", "store.db")) not in STORE
        ):
            return None
        return now

    return eventually(look, f"{workers} workers, and one revision")


def slot_name(daemon: Daemon) -> str:
    return daemon.path("state", "slots", "SLOT")


def test_a_hundred_tasks_go_through_twenty_reloads(new_daemon: Callable[..., Daemon]) -> None:
    daemon = new_daemon(queues={"many": {"concurrency": TASKS}})
    daemon.with_releases(APP, "r1", "r2").start()
    kept = daemon.raw()
    assert kept.submit("last_one") == 1
    daemon.client().handle(1).result(30)
    before = quiet_descriptors(daemon, workers=1)
    submitted = submit_all(daemon)
    ids = [handle.id for handle, _, _ in submitted]
    followers = [Followed(daemon, [task]) for task in ids[:20]] + [Followed(daemon, ids)]
    for each in followers:
        each.start()
    eventually(lambda: len({e.task for e in daemon.effects()}) == TASKS, "all are in flight")
    pings = Pings(daemon.raw(), ids[0])
    pings.start()
    pid, serving = daemon.pid, "r1"
    for _ in range(RELOADS):
        assert kept.ask("status")["revision"] == serving
        serving = "r2" if serving == "r1" else "r1"
        assert daemon.reload(serving)["revision"] == serving
        status = kept.ask("status")
        assert (status["revision"], status["pid"]) == (serving, pid)
    assert kept.ask("status")["states"]["succeeded"] == 1, "the tasks were in flight throughout"
    daemon.open_gate("end")
    for handle, result, _ in submitted:
        assert handle.result(60) == result
    pings.done.set()
    for each in (pings, *followers):
        each.join(30)
        assert not each.is_alive()
    assert pings.failure is None
    pings.raw.close()
    check_items(daemon, submitted)
    for each in followers:
        assert each.numbers == history(daemon, each.tasks)
    assert kept.ask("status")["confirmed"] == os.path.realpath(daemon.path("current"))
    check_quiet(daemon, kept, before)


def check_items(daemon: Daemon, submitted: list[tuple[TaskHandle, Any, list[str]]]) -> None:
    assert repeated(daemon.effects()) == {}
    for handle, _, items in submitted:
        assert sorted(daemon.items(handle.id)) == sorted(items)


def check_quiet(daemon: Daemon, kept: Raw, before: Counter[str]) -> None:
    """As before the first deploy: the same descriptors, one zygote, no zombie."""
    kept.submit("last_one")
    eventually(lambda: len(kept.ask("revisions")["revisions"]) == 1, "one revision is left")
    workers = kept.ask("revisions")["revisions"][0]["workers"]
    more = workers - 1
    before[slot_name(daemon)] += more
    before["socket"] += more
    eventually(lambda: len(daemon.zygotes()) == 1, "one zygote is left")
    with contextlib.suppress(AssertionError):  # if they stay others, the difference is shown
        eventually(lambda: quiet_descriptors(daemon, workers) == before)
    assert quiet_descriptors(daemon, workers) == before
    eventually(lambda: len(daemon.processes()) == 2 + workers, "master, zygote, workers")
    eventually(lambda: not daemon.zombies(), "no zombie")

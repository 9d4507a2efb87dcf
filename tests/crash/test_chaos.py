"""Deploys, and kills of workers, zygotes and the master, at random moments under load.

Whatever dies when: every task ends with the right result, no item is skipped, and an item is
done again only where an attempt was cut off in its body. The seed is printed, for who wants to
come near a failure again.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import defaultdict
from collections.abc import Callable

from support.daemon import Daemon, Effect

from taskd.client.blocking import TaskHandle

TASKS, ITEMS, ROUNDS = 24, 120, 50

APP = """
import asyncio, time
from taskd import task
from side import mark

def loop(ctx, n):
    for i in ctx.each("items", range(n)):
        mark(i)
        time.sleep(0.03)
        ctx.state["seen"] = [*ctx.state.get("seen", []), i]
    return ctx.step("sum", sum, ctx.state["seen"])

async def later(ctx, n):
    async for i in ctx.each("items", range(n)):
        mark(i)
        await asyncio.sleep(0.03)
        ctx.state["seen"] = [*ctx.state.get("seen", []), i]
    return await ctx.step("sum", sum, ctx.state["seen"])

for fn in (loop, later):
    for on_deploy in ("finish", "checkpoint"):
        task(name=f"{fn.__name__}-{on_deploy}", on_deploy=on_deploy)(fn)
"""


def deploy(daemon: Daemon, moments: random.Random) -> None:
    """Begin a deploy, and do not wait for its end: what follows falls into it."""
    daemon.point(moments.choice(["r1", "r2"]))
    daemon.kill(signal.SIGHUP)


def kill_a_worker(daemon: Daemon, moments: random.Random) -> None:
    alive = sorted({e.pid for e in daemon.effects()} & set(daemon.processes()))
    if alive:
        kill(moments.choice(alive))


def kill_a_zygote(daemon: Daemon, moments: random.Random) -> None:
    zygotes = sorted(daemon.zygotes().values())
    if zygotes:
        kill(moments.choice(zygotes))


def kill_the_master(daemon: Daemon, moments: random.Random) -> None:
    daemon.kill()
    daemon.start()


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # it ended by itself meanwhile


def test_random_kills_and_deploys_lose_nothing(new_daemon: Callable[..., Daemon]) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    moments = random.Random(seed)
    daemon = new_daemon(queues={"default": {"concurrency": TASKS}})
    daemon.with_releases(APP, "r1", "r2").start()
    client = daemon.client()
    names = [f"{fn}-{how}" for fn in ("loop", "later") for how in ("finish", "checkpoint")]
    tasks = [client.submit(names[n % 4], {"n": ITEMS}) for n in range(TASKS)]
    for _ in range(ROUNDS):
        act = moments.choices(
            [deploy, kill_a_worker, kill_a_zygote, kill_the_master], weights=[6, 6, 3, 1]
        )[0]
        act(daemon, moments)
        threading.Event().wait(moments.uniform(0.0, 0.15))
    for task in tasks:
        assert settle(task) == sum(range(ITEMS))
        check(daemon.effects(task.id))


def settle(task: TaskHandle) -> int:
    """Its result; a task that was hit three times at one place is held, and released here."""
    while (info := task.wait(120)).state == "held":
        assert "died 3 times at the same place" in str(info.reason)
        task.retry()
    return int(info.outcome())


def check(effects: list[Effect]) -> None:
    """Each attempt goes on where the one before was cut off, in its last item at the earliest."""
    by_attempt: dict[int, list[int]] = defaultdict(list)
    for effect in effects:
        by_attempt[effect.attempt].append(int(effect.item))
    assert list(by_attempt) == sorted(by_attempt), "attempts do not overlap"
    reached = -1
    for items in by_attempt.values():
        assert items == list(range(items[0], items[-1] + 1))
        assert items[0] in (reached, reached + 1)
        reached = items[-1]
    assert reached == ITEMS - 1

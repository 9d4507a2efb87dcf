"""Under steady load, many reloads in a row, a third of them to bad releases: nobody notices.

``RELOADS`` and ``LONG`` come from the environment too: $TASKD_TEST_RELOADS, $TASKD_TEST_LONG.
"""

from __future__ import annotations

import os
import statistics
import threading
from collections.abc import Callable
from typing import Any

import pytest
from support.daemon import repeated
from support.raw import Raw
from support.waiting import eventually
from world import APP, Asking, Followed, World

from taskd.errors import DeployRefused

RELOADS = int(os.environ.get("TASKD_TEST_RELOADS", "30"))
LONG = int(os.environ.get("TASKD_TEST_LONG", "40"))

WARM = 6
"""Reloads before the memory is measured for the first time."""

SAMPLES = 6
"""Measurements whose median is taken, at the beginning and at the end."""

MAY_GROW = 4 << 20
"""Bytes of noise that a master's memory may have."""

SLOW = APP.replace("time.sleep(0.02)", "time.sleep(0.5)")
"""The load is to be on the daemon, not in the tasks."""


class Loading(threading.Thread):
    """Does one thing again and again, on one raw connection: the loss of it is a failure."""

    def __init__(self, world: World, act: Callable[[Raw], Any]) -> None:
        super().__init__(daemon=True)
        self._raw = world.daemon.raw()
        self._act = act
        self._over = threading.Event()
        self.done: list[Any] = []
        self.failure: Exception | None = None

    def run(self) -> None:
        try:
            with self._raw:
                while not self._over.wait(0.02):
                    self.done.append(self._act(self._raw))
        except Exception as error:  # told to the test
            self.failure = error

    def end(self) -> list[Any]:
        self._over.set()
        self.join(60)
        assert self.failure is None, self.failure
        assert not self.is_alive()
        return self.done


def submit(raw: Raw) -> int:
    return raw.submit("quick", n=1)


def connect(world: World) -> Callable[[Raw], None]:
    """A fresh connection each time: none is refused."""

    def act(_: Raw) -> None:
        with world.daemon.raw() as fresh:
            fresh.ask("status")

    return act


def run_one(raw: Raw) -> int:
    """Submit one, follow it to its end: every event comes, in order, once."""
    task = raw.submit("quick", n=1)
    stream = raw.start("follow", tasks=[task])
    raw.reply_to(stream)
    states = [item["state"] for item in raw.items(stream) if "event" in item]
    assert states == ["queued", "running", "succeeded"], states
    return task


def does_not_import(world: World) -> str:
    release = world.release()
    with open(os.path.join(world.path_of(release), "app.py"), "a", encoding="utf-8") as file:
        file.write("\nraise ValueError('bad')\n")
    return release


def lacks_a_task(world: World) -> str:
    release = world.release()
    with open(os.path.join(world.path_of(release), "app.py"), "w", encoding="utf-8") as file:
        file.write(APP.replace("def moves", "def moved"))
    return release


def gives_back(world: World) -> str:
    world.daemon.fail_at("confirm", "exception")
    return world.release()


BAD = [does_not_import, lacks_a_task, gives_back]


def resident(pid: int) -> int:
    """Bytes."""
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.fixture
def loaded(world: World) -> World:
    """The same app, whose long tasks are slow."""
    path = world.path_of(name := world.release())
    with open(os.path.join(path, "app.py"), "w", encoding="utf-8") as file:
        file.write(SLOW)
    world.daemon.sections["queues"]["loops"]["concurrency"] = LONG
    world.daemon.write_config()
    world.deploy(name)
    return world


def test_reloads_under_load(loaded: World) -> None:
    world, daemon = loaded, loaded.daemon
    world.check_quiet()
    names = ("stays", "moves")
    long = [world.kept.submit(names[n % 2], end="long") for n in range(LONG)]
    followers = [Followed(daemon, [task]) for task in long[:10]] + [Followed(daemon, long)]
    for task in long:
        daemon.reached(task, "0")
    loads = [Loading(world, act) for act in (submit, run_one, run_one, connect(world))]
    for load in loads:
        load.start()
    memory = []
    for number in range(RELOADS):
        reload(world, bad=BAD[number // 3 % 3] if number % 3 == 2 else None)
        memory.append(resident(daemon.pid))
    done = [load.end() for load in loads]
    assert all(done), "each did something"
    quick = [task for tasks in done[:3] for task in tasks]
    client = daemon.client()
    assert [client.handle(task).result(30) for task in quick] == [2] * len(quick)
    daemon.open_gate("long")
    for task in long:
        last = client.handle(task).result(60)
        assert daemon.items(task) == [str(n) for n in range(last + 1)]
    assert repeated(daemon.effects()) == {}
    for follower in followers:
        follower.check(daemon)
    client.close()
    print_figures(memory, quick)
    first, last = (statistics.median(m) for m in (memory[WARM : WARM + SAMPLES], memory[-SAMPLES:]))
    assert last < first + MAY_GROW, memory
    world.deploy(world.release())
    world.check_quiet()


def reload(world: World, bad: Callable[[World], str] | None) -> None:
    if bad is None:
        release = world.release()
        with open(os.path.join(world.path_of(release), "app.py"), "w", encoding="utf-8") as file:
            file.write(SLOW)
        eventually(lambda: fits(world, release), "there is room for one more revision")
        return
    with pytest.raises(DeployRefused) as caught:
        eventually(lambda: fits(world, bad(world)))
    assert "revisions are alive" not in str(caught.value)
    assert world.status()["revision"] == world.serving


def fits(world: World, release: str) -> bool:
    """Deploy it; False if the cap on revisions is reached for now."""
    with Asking(world.daemon, world.path_of(release)) as caller:
        verdict = caller.verdict()
    assert verdict is not None
    if verdict.what == "refused" and "revisions are alive" not in verdict.why:
        raise DeployRefused(verdict.why)
    if verdict.what == "served":
        world.serving = release
    return verdict.what == "served"


def print_figures(memory: list[int], quick: list[int]) -> None:
    """Shown by `pytest -s`, and when the test fails."""
    shown = [f"{size / (1 << 20):.1f}" for size in memory]
    print(f"{len(quick)} short tasks; the master's memory in MiB: {' '.join(shown)}")

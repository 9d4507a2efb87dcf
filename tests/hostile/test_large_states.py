"""Tasks that save a lot: what the daemon does for all others must not grow with it.

What is measured: how many bytes the master reads and how much memory it takes on, never a time.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from support.apps import HOLDS
from support.daemon import Daemon
from support.waiting import eventually

from taskd.errors import TaskFailed

MIB = 1 << 20

STATE = 3 * MIB
"""Bytes that each task saves."""

TASKS = 8

APP = (
    HOLDS
    + """
@task
def fails(ctx: Context, size: int) -> None:
    ctx.state["data"] = os.urandom(size)
    ctx.checkpoint()
    mark("saved")
    gate("go")
    raise ValueError(len(ctx.state["data"]))

@task
def sleeps(ctx: Context, size: int, **more) -> int:
    if "data" not in ctx.state:
        ctx.state["data"] = os.urandom(size)
    ctx.sleep(1_000_000, "long")
    return len(ctx.state["data"])

@task
def echo(text: str) -> str:
    return text
"""
)

MIGRATES = (
    APP.replace("@task\ndef holds", "@task(version=2)\ndef holds").replace(
        "@task\ndef sleeps", "@task(version=2)\ndef sleeps"
    )
    + """
def tells(saved):
    raise ValueError(f"it has {len(saved.state['data'])} bytes")

holds.migrate(1)(tells)
sleeps.migrate(1)(tells)
"""
)

TOLD = f"it has {STATE} bytes"


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    made = new_daemon(queues={"default": {"concurrency": TASKS + 2}})
    made.release("r1", APP)
    made.release("r2", MIGRATES)
    made.point("r1")
    return made.start()


def saving(daemon: Daemon, name: str = "holds", count: int = TASKS) -> list[int]:
    """Tasks that run, and have saved."""
    with daemon.client() as client:
        tasks = [int(client.submit(name, {"size": STATE}).id) for _ in range(count)]
    for task in tasks:
        daemon.reached(task, "saved")
    return tasks


def read_by(daemon: Daemon) -> int:
    """Bytes that the master's loop has read so far, from whatever it was. (Of the whole process,
    the kernel counts what its dead children have read as well.)"""
    with open(f"/proc/{daemon.pid}/task/{daemon.pid}/io", encoding="ascii") as file:
        (found,) = re.findall(r"rchar: (\d+)", file.read())
    return int(found)


def memory(daemon: Daemon, what: str) -> int:
    with open(f"/proc/{daemon.pid}/status", encoding="ascii") as file:
        (found,) = re.findall(rf"{what}:\s+(\d+) kB", file.read())
    return int(found) * 1024


@contextmanager
def bounded_memory(daemon: Daemon, most: int) -> Iterator[None]:
    """At no moment of the body has the master ``most`` bytes more than before it."""
    with open(f"/proc/{daemon.pid}/clear_refs", "w", encoding="ascii") as file:
        file.write("5")  # proc(5): the peak begins anew
    before = memory(daemon, "VmRSS")
    yield
    grown = memory(daemon, "VmHWM") - before
    assert grown < most, f"the master took on {grown / MIB:.1f} MiB"


def planned(daemon: Daemon, revision: str, what: str) -> list[str]:
    """Why each would be held."""
    daemon.point(revision)
    with daemon.client(timeout=120) as client:
        plan = client.reload(plan=True)["plan"]
    return [row["why"] for row in plan[what]]


def test_what_running_tasks_have_saved_is_read_by_the_probe_worker(daemon: Daemon) -> None:
    saving(daemon)
    before = read_by(daemon)
    with bounded_memory(daemon, 2 * STATE):
        whys = planned(daemon, "r2", "running")
    assert len(whys) == TASKS
    assert all(TOLD in why for why in whys), whys
    assert read_by(daemon) - before < STATE
    daemon.open_gate("go")


def test_what_waiting_tasks_have_saved_is_never_in_memory_all_at_once(daemon: Daemon) -> None:
    with daemon.client() as client:
        for number in range(TASKS):  # each of a shape of its own
            client.submit("sleeps", {"size": STATE, f"more_{number}": 1})
        eventually(lambda: client.status()["states"]["scheduled"] == TASKS, "all of them sleep")
    with bounded_memory(daemon, 6 * STATE):
        whys = planned(daemon, "r2", "waiting")
    assert len(whys) == TASKS
    assert all(TOLD in why for why in whys), whys


def test_what_a_stop_would_interrupt_is_told_without_reading_what_is_saved(daemon: Daemon) -> None:
    tasks = saving(daemon)
    before = read_by(daemon)
    with daemon.raw() as raw:
        told = raw.ask("shutdown", plan=True)["tasks"]
    assert [each["task"] for each in told if each["saved"] is not None] == tasks
    assert read_by(daemon) - before < STATE
    daemon.open_gate("go")


# ── many at once ─────────────────────────────────────────────────────────────────────────────────

CROWD = 24

CACHE = 16 * MIB
"""Bytes of the store that the writer keeps in memory at most."""

HELD = CACHE + 15 * STATE
"""What the master may take on however many there are: the cache, one state that is read, those that
wait for the disk (INTAKE), what SQLite makes of them in one commit, the one that is handed out."""

INTAKE = 2 * STATE


@pytest.fixture
def crowd(new_daemon: Callable[..., Daemon]) -> Daemon:
    made = new_daemon(queues={"default": {"concurrency": CROWD + 2}})
    made.constants = {"taskd.master.fleet.intake.BOUND": INTAKE}
    return made.with_releases(APP, "r1", "r2").start()


def killed(daemon: Daemon, tasks: list[int]) -> None:
    """All of their workers die at the same moment."""
    for pid in [daemon.reached(task, "saved").pid for task in tasks]:
        os.kill(pid, signal.SIGKILL)


def gone_on(daemon: Daemon, tasks: list[int], attempt: int = 2) -> None:
    for task in tasks:
        daemon.reached(task, "saved", attempt)
    daemon.open_gate("go")
    with daemon.client() as client:
        assert [client.handle(task).result(60) for task in tasks] == [STATE] * len(tasks)


def test_many_workers_that_die_at_once_are_salvaged_one_by_one(crowd: Daemon) -> None:
    tasks = saving(crowd, count=CROWD)
    before = memory(crowd, "VmRSS")
    with bounded_memory(crowd, HELD):
        killed(crowd, tasks)
        gone_on(crowd, tasks)
    kept = lambda: memory(crowd, "VmRSS") - before  # noqa: E731
    eventually(lambda: kept() < CACHE + 4 * STATE, "the memory is given back")


def test_a_start_salvages_many_dead_workers_one_by_one(crowd: Daemon) -> None:
    tasks = saving(crowd, count=CROWD)
    before = memory(crowd, "VmHWM")
    crowd.kill_everything()
    crowd.start()
    gone_on(crowd, tasks)
    grown = memory(crowd, "VmHWM") - before
    assert grown < HELD, f"the master took on {grown / MIB:.1f} MiB"


def test_many_ends_at_once_are_recorded_one_by_one(crowd: Daemon) -> None:
    saving(crowd, "fails", CROWD)
    with bounded_memory(crowd, HELD), crowd.client() as client:
        crowd.open_gate("go")
        eventually(lambda: client.status()["states"]["failed"] == CROWD, "all have failed")


@pytest.mark.parametrize("crosses", ["deploy", "crash"])
def test_ends_and_deaths_that_wait_for_room_cross_a_deploy_and_a_crash(
    new_daemon: Callable[..., Daemon], crosses: str
) -> None:
    """There is never any room here, but in the next image, which has the usual bound."""
    daemon = new_daemon()
    daemon.constants = {"taskd.master.fleet.intake.BOUND": -1}
    daemon.with_releases(APP, "r1", "r2").start()
    dies, fails = saving(daemon, count=1) + saving(daemon, "fails", 1)
    killed(daemon, [dies])
    daemon.open_gate("go")
    if crosses == "deploy":
        assert daemon.reload("r2")["revision"] == "r2"
    else:
        daemon.kill()
        daemon.constants = {}
        daemon.start()
    with daemon.client() as client:
        assert client.handle(dies).result(60) == STATE
        with pytest.raises(TaskFailed, match=str(STATE)):
            client.handle(fails).result(60)

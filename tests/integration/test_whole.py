"""All parts together: the command line, both clients, tasks that submit tasks, a full disk."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from support.daemon import Daemon, repeated
from support.waiting import eventually

import taskd
from taskd.errors import StoreError

APP = """
import time
from taskd import task
from side import gate, mark

@task
def add(a: int, b: int | str = 2) -> int:
    print("adding", a, b)
    return a + b

@task
def child(n: int) -> int:
    mark(f"child-{n}")
    return n * n

@task(queue="parents")
def parent(count: int) -> int:
    return sum(h.result(60) for h in [child.submit(n=n) for n in range(count)])

@task
def waits(ctx, n: int) -> str:
    for i in ctx.each("items", range(n)):
        mark(i)
        if i == 0:
            gate("go")
    return "REVISION"

@task
def saves(ctx, size: int) -> int:
    mark("begin")
    gate("go")
    return len(ctx.step("much", bytes, size))
"""

TASKCTL = [sys.executable, "-c", "import sys, taskd.cli.taskctl as c; sys.exit(c.main())"]
"""What the installed command does."""


def prepare(daemon: Daemon) -> Daemon:
    return daemon.with_releases(APP, "r1", "r2")


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    return prepare(new_daemon()).start()


def taskctl(daemon: Daemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*TASKCTL, *arguments]
    environment = daemon.environment() | {"TASKD_SOCKET": daemon.path("run")}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


# ── the command line ─────────────────────────────────────────────────────────────────────────


def test_a_task_from_submission_to_its_log_on_the_command_line(daemon: Daemon) -> None:
    submitted = taskctl(daemon, "submit", "add", "a=40")
    assert submitted.returncode == 0, submitted.stderr
    task = submitted.stdout.strip()
    assert taskctl(daemon, "wait", task).returncode == 0
    shown = json.loads(taskctl(daemon, "show", task, "--json").stdout)
    assert (shown["id"], shown["name"], shown["state"], shown["result"]) == (
        task, "add", "succeeded", 42,
    )  # fmt: skip
    assert taskctl(daemon, "logs", task).stdout == "adding 40 2\n"
    listed = [json.loads(line) for line in taskctl(daemon, "list", "--json").stdout.splitlines()]
    assert [each["id"] for each in listed] == [task]
    ran = taskctl(daemon, "run", "--wait", "--", "sh", "-c", "exit 3")
    assert ran.returncode == 4, ran.stdout + ran.stderr


def test_a_deploy_on_the_command_line_exits_with_its_verdict(daemon: Daemon) -> None:
    daemon.point("r2")
    good = taskctl(daemon, "reload")
    assert good.returncode == 0, good.stderr
    assert json.loads(taskctl(daemon, "status", "--json").stdout)["revision"] == "r2"
    daemon.release("bad", "import nowhere_to_be_found")
    daemon.point("bad")
    bad = taskctl(daemon, "reload")
    assert bad.returncode == 1
    last_line = "ModuleNotFoundError: No module named 'nowhere_to_be_found'"
    where = f"({daemon.path('releases', 'bad')}/app.py, line 1)"
    assert bad.stderr == f"taskctl: bad does not import: {last_line} {where}\n"
    assert json.loads(taskctl(daemon, "status", "--json").stdout)["revision"] == "r2"


def test_follow_on_the_command_line_rides_over_a_deploy_and_a_dead_master(
    daemon: Daemon,
) -> None:
    task = daemon.client().submit("waits", {"n": 3})
    daemon.reached(task.id, "0")
    environment = daemon.environment() | {"TASKD_SOCKET": daemon.path("run")}
    with subprocess.Popen(
        [*TASKCTL, "follow", str(task.id), "--json"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as follower:
        assert follower.stdout is not None
        first = json.loads(follower.stdout.readline())
        daemon.reload("r2")
        daemon.kill()
        daemon.start()
        daemon.open_gate("go")
        rest = [json.loads(line) for line in follower.stdout]
        assert follower.wait(30) == 0
    assert [each["state"] for each in (first, *rest)] == ["queued", "running", "succeeded"]


def test_no_daemon_is_exit_status_3_with_what_was_tried(daemon: Daemon) -> None:
    assert daemon.stop() == 0
    ran = taskctl(daemon, "status")
    assert ran.returncode == 3
    assert daemon.path("run", "control.sock") in ran.stderr


# ── clients ──────────────────────────────────────────────────────────────────────────────────


def test_the_async_client_follows_many_tasks_over_deploys(daemon: Daemon) -> None:
    async def play() -> list[str]:
        async with taskd.AsyncClient(daemon.control) as client:
            tasks = [await client.submit("waits", {"n": 2}) for _ in range(6)]

            async def states(task: taskd.client.aio.AsyncTaskHandle) -> list[str]:
                return [event["state"] async for event in task.follow()]

            following = [asyncio.create_task(states(task)) for task in tasks]
            for task in tasks:
                await asyncio.to_thread(daemon.reached, task.id, "0")
            for name in ("r2", "r1"):
                daemon.point(name)
                await client.reload()
            daemon.open_gate("go")
            for each in following:
                assert await each == ["queued", "running", "succeeded"]
            return [await task.result(30) for task in tasks]

    assert asyncio.run(play()) == ["r1"] * 6


def test_a_task_submits_others_and_waits_for_them(new_daemon: Callable[..., Daemon]) -> None:
    daemon = prepare(new_daemon(queues={"default": {"concurrency": 4}})).start()
    task = daemon.client().submit("parent", {"count": 12})
    assert task.result(60) == sum(n * n for n in range(12))
    assert repeated(daemon.effects()) == {}


def test_a_client_waits_for_a_daemon_that_comes_back(daemon: Daemon) -> None:
    client = daemon.client()
    task = client.submit("add", {"a": 1})
    task.result(30)
    daemon.kill()
    daemon.process = daemon.spawn()
    assert client.submit("add", {"a": 2}).result(30) == 4
    assert client.task(task.id).state == "succeeded"


# ── places ───────────────────────────────────────────────────────────────────────────────────


def test_directories_with_long_and_odd_names_are_as_good(
    new_daemon: Callable[..., Daemon],
) -> None:
    """A socket's address holds 107 bytes; a path may be longer."""
    daemon = prepare(new_daemon())
    daemon.runtime = daemon.path("run", "a long name " * 6, "ünd öther sïgns", "x" * 80)
    os.makedirs(daemon.runtime)
    daemon.start()
    assert len(os.fsencode(daemon.control)) > 108
    daemon.reload("r2")
    assert daemon.client().submit("parent", {"count": 2}).result(30) == 1


@pytest.fixture
def small(new_daemon: Callable[..., Daemon]) -> Iterator[Daemon]:
    """A daemon whose state directory is a file system of 8 MiB."""
    made = prepare(new_daemon())
    state = made.path("state")
    command = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=0755", "taskd-test", state]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small file system is not permitted here")
    try:
        yield made.start()
    finally:
        subprocess.run(["umount", "--lazy", state], check=True)


def test_a_full_disk_is_waited_out_and_nothing_is_lost(small: Daemon) -> None:
    client = small.client()
    earlier = client.submit("waits", {"n": 2})
    small.reached(earlier.id, "0")
    ballast = fill(small)
    with pytest.raises(StoreError, match="full"):
        for _ in range(100):  # the store's own file may still have some pages to spare
            client.submit("add", {"a": 1, "b": "x" * 100_000}, delay=3600)
    small.open_gate("go")
    eventually(lambda: small.items(earlier.id) == ["0", "1"], "it works on what it has")
    os.unlink(ballast)
    assert earlier.result(30) == "r1"
    assert client.submit("add", {"a": 1}).result(30) == 3


def test_a_task_that_finds_the_disk_full_waits_visibly_and_goes_on(small: Daemon) -> None:
    client = small.client()
    task = client.submit("saves", {"size": 900_000})
    small.reached(task.id, "begin")
    ballast = fill(small, leave=600_000)
    small.open_gate("go")
    eventually(lambda: "space" in str(task.status().reason), "it says what it waits for")
    assert task.status().state == "running"
    os.unlink(ballast)
    assert task.result(30) == 900_000
    assert small.items(task.id) == ["begin"], "it has waited, and was not tried again"


def fill(daemon: Daemon, leave: int = 0) -> str:
    """Write a file until the disk is full (but for ``leave`` bytes); its path."""
    path = daemon.path("state", "ballast")
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            pass
        file.truncate(max(0, file.tell() - leave))
    return path

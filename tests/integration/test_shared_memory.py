"""What multiprocessing's resource tracker cleans up after a process is cleaned up after a task.

The tracker does so once nobody that it serves lives any more: whoever ends the rest of a tree gives
it a moment.
"""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Callable, Iterator

import pytest
from support import processes
from support.daemon import Daemon
from support.waiting import eventually

APP = """
import os, signal, sys, time
from multiprocessing import get_context, shared_memory
from side import attempt, gate, mark
from taskd import task

@task
def makes(name: str, how: str) -> int:
    if attempt() > 1:
        return os.getpid()
    made = shared_memory.SharedMemory(name, create=True, size=4096)
    get_context("spawn").Process(target=time.sleep, args=(1000,)).start()  # holds the pipe as well
    mark("made")
    if how == "raises":
        raise ValueError("made")
    if how == "is killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "waits":
        gate("never")
    return os.getpid()

@task
def is_deaf() -> int:
    mark("begun")
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        mark("deaf")
        while True:
            time.sleep(60)
    gate("deaf")
    if attempt() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return child

@task
def has_successors(how: str) -> int:
    if attempt() > 1:
        return os.getpid()
    if os.fork() == 0:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        mark("deaf")
        while True:
            time.sleep(0.2)
            if os.fork():
                os._exit(0)
    gate("deaf")
    if how == "is killed":
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()
"""

AT_IMPORT = """
from multiprocessing import shared_memory
made = shared_memory.SharedMemory("NAME", create=True, size=4096)
"""


@pytest.fixture
def name() -> Iterator[str]:
    made = f"taskd-test-{uuid.uuid4().hex}"
    yield made
    if exists(made):
        os.unlink(f"/dev/shm/{made}")


def exists(name: str) -> bool:
    return os.path.exists(f"/dev/shm/{name}")


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    made = new_daemon(daemon={"cancel_grace": 0.1})
    return made.with_releases(APP, "r1").start()


@pytest.mark.parametrize("how", ["returns", "raises", "is killed"])
def test_shared_memory_goes_with_the_attempt(daemon: Daemon, name: str, how: str) -> None:
    with daemon.client() as client:
        task = client.submit("makes", {"name": name, "how": how})
        assert task.wait(30).state in ("succeeded", "failed")
    daemon.reached(task.id, "made")
    assert not exists(name), "it is gone before the attempt is over"


def test_shared_memory_goes_with_a_task_that_is_cancelled_by_force(
    daemon: Daemon, name: str
) -> None:
    with daemon.client() as client:
        task = client.submit("makes", {"name": name, "how": "waits"})
        daemon.reached(task.id, "made")
        task.cancel()
        assert task.wait(30).state == "cancelled"
    assert not exists(name)


def test_shared_memory_goes_with_a_worker_whose_zygote_and_daemon_are_dead(
    daemon: Daemon, name: str
) -> None:
    with daemon.client() as client:
        task = client.submit("makes", {"name": name, "how": "waits"})
        worker = daemon.reached(task.id, "made").pid
        for pid in (daemon.pid, *daemon.zygotes().values(), worker):
            os.kill(pid, signal.SIGKILL)
        daemon.kill()
        daemon.start()
        assert task.wait(30).state == "succeeded", "it continues in another process"
    assert not exists(name)


def test_shared_memory_of_the_import_goes_with_the_zygote(
    new_daemon: Callable[..., Daemon], name: str
) -> None:
    daemon = new_daemon()
    daemon.release("r1", AT_IMPORT.replace("NAME", name) + APP)
    daemon.release("r2", APP)
    daemon.point("r1")
    daemon.start()
    assert exists(name)
    daemon.reload("r2")
    eventually(lambda: not exists(name), "the old revision's is gone")


def test_who_only_looks_like_a_helper_is_killed_a_moment_later(daemon: Daemon) -> None:
    with daemon.client() as client:
        task = client.submit("is_deaf")
        deaf = daemon.reached(task.id, "deaf").pid
        daemon.open_gate("deaf")
        daemon.reached(task.id, "begun", attempt=2)
        assert not processes.is_alive(deaf), "before the next attempt begins"
        assert task.wait(30).state == "succeeded"


@pytest.mark.parametrize("how", ["returns", "is killed"])
def test_nobody_gains_time_by_leaving_a_successor(daemon: Daemon, how: str) -> None:
    with daemon.client() as client:
        task = client.submit("has_successors", {"how": how})
        daemon.reached(task.id, "deaf")
        daemon.open_gate("deaf")
        assert task.wait(30).state == "succeeded"

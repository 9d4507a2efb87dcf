"""A control group for each worker: what is in it ends with it, however it tries to get away."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support import processes
from support.daemon import Daemon
from support.groups import GroupedDaemon, mounted
from support.waiting import eventually

from taskd.posix import cgroup

APP = """
import ctypes, os, resource, signal, time
from taskd import task
from side import attempt, gate, mark

CLONE, CLONE_PARENT = 56, 0x8000

@task
def holds(name="go") -> str:
    mark("holds")
    gate(name)
    return "done"

@task
def leaves_a_brother() -> str:
    "A process that is no descendant of its worker's: the zygote is its parent."
    began, begins = os.pipe()
    # Not without the interpreter's lock: the copy would wait for a thread that it does not have.
    if ctypes.PyDLL(None).syscall(CLONE, CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0) == 0:
        try:
            mark("brother")
            os.write(begins, b".")
            time.sleep(3600)
        finally:
            os._exit(0)
    os.read(began, 1)
    return "done"

@task
def leaves_one_without_a_mark() -> str:
    if attempt() > 1:
        return "done"
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            resource.setrlimit(10, (12345678, 12345678))  # RLIMIT_LOCKS
            mark("unmarked")
            time.sleep(3600)
        os._exit(0)
    mark("begun")
    time.sleep(3600)

@task
def stays() -> str:
    "Deaf to being asked, with a child of another session."
    if os.fork() == 0:
        os.setsid()
        mark("child")
        time.sleep(3600)
    mark("stays")
    time.sleep(3600)

@task
def makes_shared_memory(name: str) -> str:
    from multiprocessing import shared_memory
    if attempt() > 1:
        return "done"
    shared_memory.SharedMemory(name, create=True, size=4096)
    mark("made")
    time.sleep(3600)

@task
def makes_a_group() -> str:
    own = next(line[3:].strip() for line in open("/proc/self/cgroup") if line.startswith("0::"))
    path = os.path.join(os.environ["TASKD_TEST_GROUPS"] + own, "mine")
    os.mkdir(path)
    began, begins = os.pipe()
    if os.fork() == 0:
        with open(path + "/cgroup.procs", "w") as file:
            file.write("0")
        mark("in mine")
        os.write(begins, b".")
        time.sleep(3600)
    os.read(began, 1)
    return "done"
"""


@pytest.fixture(params=["auto", "never"])
def daemon(request: pytest.FixtureRequest, new_daemon: Callable[..., Daemon]) -> GroupedDaemon:
    made = new_daemon(kind=GroupedDaemon, app={"fork": request.param}, daemon={"cancel_grace": 0.1})
    assert isinstance(made, GroupedDaemon)
    made.extra["TASKD_TEST_GROUPS"] = str(mounted())
    made.with_releases(APP, "r1", "r2").start()
    return made


def test_each_worker_is_in_a_group_of_its_own_that_goes_with_it(daemon: GroupedDaemon) -> None:
    with daemon.client() as client:
        tasks = [client.submit("holds") for _ in range(3)]
        pids = {daemon.reached(task.id, "holds").pid for task in tasks}
        groups = daemon.workers()
        assert [groups.get(daemon.group_of(pid)) for pid in pids] == [{pid} for pid in pids]
        assert daemon.group_of(daemon.pid) == daemon.group.name
        assert daemon.group_of(daemon.zygotes()["r1"]) == daemon.group.name
        daemon.open_gate("go")
        assert [task.result(30) for task in tasks] == ["done"] * 3
    daemon.reload("r2")
    eventually(lambda: len(daemon.workers()) <= 1, "the groups of the old workers are removed")
    assert daemon.stop() == 0
    assert daemon.workers() == {}


def test_what_is_no_descendant_of_its_worker_is_gone_when_the_task_has_ended(
    daemon: GroupedDaemon,
) -> None:
    with daemon.client() as client:
        task = client.submit("leaves_a_brother")
        brother = daemon.reached(task.id, "brother").pid
        assert task.result(30) == "done"
        assert not processes.is_alive(brother)


def test_what_hides_from_every_other_look_is_gone_before_the_next_attempt(
    daemon: GroupedDaemon,
) -> None:
    with daemon.client() as client:
        task = client.submit("leaves_one_without_a_mark")
        hidden = daemon.reached(task.id, "unmarked").pid
        worker = daemon.reached(task.id, "begun").pid
        group = daemon.group_of(worker)
    zygote = daemon.zygotes()["r1"]
    for pid in (daemon.pid, zygote, worker):
        os.kill(pid, signal.SIGKILL)
    daemon.kill()
    assert processes.is_alive(hidden)
    daemon.start()
    with daemon.client() as client:
        assert client.handle(task.id).result(30) == "done"
    assert not processes.is_alive(hidden)
    eventually(lambda: group not in daemon.workers(), "the dead worker's group is removed")


@pytest.mark.parametrize("how", ["is cancelled", "is killed"])
def test_what_a_helper_cleans_up_after_its_worker_is_cleaned_up(
    daemon: GroupedDaemon, how: str
) -> None:
    name = f"taskd-test-{os.path.basename(daemon.root)}"
    with daemon.client() as client:
        task = client.submit("makes_shared_memory", {"name": name})
        worker = daemon.reached(task.id, "made").pid
        assert os.path.exists(f"/dev/shm/{name}")
        if how == "is cancelled":
            task.cancel()
        else:
            os.kill(worker, signal.SIGKILL)
        assert task.wait(30).state == ("cancelled" if how == "is cancelled" else "succeeded")
    assert not os.path.exists(f"/dev/shm/{name}")


def test_a_task_that_is_killed_is_killed_with_all_that_it_has_started(
    daemon: GroupedDaemon,
) -> None:
    with daemon.client() as client:
        task = client.submit("stays")
        child, worker = daemon.reached(task.id, "child").pid, daemon.reached(task.id, "stays").pid
        task.cancel()
        task.wait(30)
        assert task.status().state == "cancelled"
        assert not processes.is_alive(child)
        assert not processes.is_alive(worker)


def test_whatever_is_in_the_group_of_a_killed_worker_is_gone_before_its_task_is_over(
    daemon: GroupedDaemon,
) -> None:
    """Also what nobody of the daemon's is the parent of."""
    with daemon.client() as client, subprocess.Popen(["sleep", "3600"]) as other:
        try:
            task = client.submit("stays")
            worker = daemon.reached(task.id, "stays").pid
            group = daemon.group_of(worker)
            Path(daemon.group, group, "cgroup.procs").write_text(str(other.pid))
            os.kill(worker, signal.SIGKILL)
            daemon.reached(task.id, "stays", attempt=2)
            assert other.pid not in daemon.workers().get(group, set()), "it ends, at least"
            assert other.wait(30) == -signal.SIGKILL
            task.cancel()
            task.wait(30)
        finally:
            other.kill()


def test_a_group_that_a_task_has_made_goes_with_it(daemon: GroupedDaemon) -> None:
    with daemon.client() as client:
        task = client.submit("makes_a_group")
        inner = daemon.reached(task.id, "in_mine").pid
        assert task.result(30) == "done"
        assert not processes.is_alive(inner)
    assert daemon.stop() == 0
    assert daemon.workers() == {}


def test_workers_are_found_in_their_groups_by_the_next_master(daemon: GroupedDaemon) -> None:
    with daemon.client() as client:
        task = client.submit("holds")
        pid = daemon.reached(task.id, "holds").pid
    group = daemon.group_of(pid)
    daemon.kill()
    daemon.start()
    assert daemon.workers()[group] == {pid}
    daemon.open_gate("go")
    with daemon.client() as client:
        assert client.handle(task.id).result(30) == "done"
        assert daemon.effects(task.id)[-1].pid == pid
        assert client.handle(task.id).status().attempt == 1


def test_a_group_that_cannot_be_made_costs_no_task(daemon: GroupedDaemon) -> None:
    Path(daemon.group, "cgroup.max.descendants").write_text("0")
    with daemon.client() as client:
        assert [client.submit("holds", {"name": "."}).result(30) for _ in range(2)] == ["done"] * 2
        checks = client.status()["checks"]
    assert daemon.workers() == {}
    assert (checks[0]["name"], checks[0]["ok"]) == ("control groups", False)
    assert "no control group for a worker: Resource temporarily unavailable" in checks[0]["text"]
    assert daemon.log().count("no control group for a worker") == 1


def test_a_group_that_is_not_delegated_is_left_alone_and_the_doctor_says_so(
    new_daemon: Callable[..., Daemon],
) -> None:
    made = new_daemon(kind=GroupedDaemon)
    assert isinstance(made, GroupedDaemon)
    os.removexattr(made.group, "user.delegate")
    made.with_releases(APP, "r1").start()
    with made.client() as client:
        assert client.submit("holds", {"name": "."}).result(30) == "done"
        checks = client.status()["checks"]
    assert cgroup.members(str(made.group)) >= {made.pid}
    assert made.workers() == {}
    assert checks[0]["text"].startswith(
        f"not in force: the group {made.group} is not delegated to the daemon; "
    )


def test_limits_that_the_kernel_cannot_hold_cost_no_task_and_the_doctor_says_so(
    new_daemon: Callable[..., Daemon],
) -> None:
    made = new_daemon(True, kind=GroupedDaemon, queues={"default": {"memory_max": "1GiB"}})
    assert isinstance(made, GroupedDaemon)
    made.with_releases(APP, "r1").start()
    with made.client() as client:
        assert client.submit("holds", {"name": "."}).result(30) == "done"
        found = {check["name"]: check for check in client.status()["checks"]}
    why = f"no limits on memory: the kernel has no controller for them in {made.group}"
    assert made.log().count(why) == 1
    assert why in found["control groups"]["text"]
    assert found["limits of queues"]["text"] == "not in force: memory"

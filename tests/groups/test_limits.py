"""Limits of a queue, as the kernel holds them: memory, and processes and threads.

Needs a kernel whose controllers for them are those of version 2. Where this machine's are not,
``test_other_kernel`` runs this file on one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support import processes
from support.daemon import Daemon
from support.groups import GroupedDaemon, can_limit, mounted
from support.waiting import eventually

WANTED = "+memory +pids"

APP = """
import os, time
from taskd import task
from side import attempt, gate, mark

MiB = 1 << 20

@task
def holds(name) -> int:
    mark("holds")
    gate(name)
    return os.getpid()

@task(queue="unnamed")  # by the file: a task alone names it
def names_a_queue() -> None:
    pass

@task
def takes(size: int, name: str = ".") -> str:
    "The first time too much; a child of its goes on beside it."
    if attempt() > 1:
        return "done"
    if os.fork() == 0:
        mark("child")
        time.sleep(3600)
    mark("takes")
    gate(name)
    found = []
    while sum(map(len, found)) < size * MiB:
        found.append(b"x" * MiB)
    return "took it"

@task
def forks(n: int) -> int:
    count = 0
    try:
        for _ in range(n):
            if os.fork() == 0:
                time.sleep(3600)
            count += 1
    except BlockingIOError:
        pass
    return count
"""


@pytest.fixture
def kernel() -> Path:
    """Where groups with limits can be made. Skips where they cannot."""
    place = mounted()
    if not can_limit(place):
        pytest.skip("the kernel's control groups of version 2 have no limits of memory and pids")
    (place / "cgroup.subtree_control").write_text(WANTED)
    return place


@pytest.fixture
def make(kernel: Path, new_daemon: Callable[..., Daemon]) -> Callable[..., GroupedDaemon]:
    def made(**queues: dict[str, object]) -> GroupedDaemon:
        daemon = new_daemon(kind=GroupedDaemon, queues=queues)
        assert isinstance(daemon, GroupedDaemon)
        daemon.with_releases(APP, "r1").start()
        return daemon

    return made


def limits(daemon: GroupedDaemon, pid: int) -> tuple[str, str]:
    """memory.max and pids.max of the group that this process is in."""
    group = daemon.group / daemon.group_of(pid)
    memory, pids = (group / name for name in ("memory.max", "pids.max"))
    return _limit(memory), _limit(pids)


def _limit(file: Path) -> str:
    """Without the controller there is no limit."""
    return file.read_text().strip() if file.exists() else "max"


def test_who_takes_more_memory_than_its_queue_may_is_killed_alone_and_it_is_said_why(
    make: Callable[..., GroupedDaemon],
) -> None:
    daemon = make(small={"memory_max": "64MiB"}, large={})
    with daemon.client() as client:
        other = client.submit("holds", {"name": "go"}, queue="large")
        daemon.reached(other.id, "holds")
        greedy = client.submit("takes", {"size": 200}, queue="small")
        assert greedy.result(60) == "done"
        assert not processes.is_alive(daemon.reached(greedy.id, "child").pid)
        reasons = [event["reason"] for event in greedy.follow() if event["reason"]]
        said = "killed it, since it used more memory than its queue's memory_max, 64MiB"
        assert any(said in reason for reason in reasons), reasons
        assert client.submit("takes", {"size": 100}, queue="large").result(60) == "took it"
        daemon.open_gate("go")
        assert other.result(30) and other.status().attempt == 1


def test_who_makes_more_processes_than_its_queue_may_is_refused_the_next(
    make: Callable[..., GroupedDaemon],
) -> None:
    daemon = make(few={"pids_max": 20}, many={})
    with daemon.client() as client:
        count = client.submit("forks", {"n": 40}, queue="few").result(60)
        assert 10 <= count < 20
        assert client.submit("forks", {"n": 40}, queue="many").result(60) == 40


def test_a_worker_is_given_tasks_of_the_same_limits_alone(
    make: Callable[..., GroupedDaemon],
) -> None:
    daemon = make(a={"pids_max": 50}, b={"pids_max": 50}, c={"pids_max": 60})
    with daemon.client() as client:
        pids = {queue: set() for queue in "abc"}
        for queue in "acbcabcacb":
            pids[queue].add(client.submit("holds", {"name": "."}, queue=queue).result(30))
    assert (pids["a"] | pids["b"]).isdisjoint(pids["c"])
    assert sum(map(len, pids.values())) < 10, "a worker that is free is used again"
    assert pids["a"] & pids["b"], "by a queue of the same limits as well"


def test_a_queue_that_says_nothing_has_the_limits_of_the_default_one(
    make: Callable[..., GroupedDaemon],
) -> None:
    daemon = make(default={"memory_max": "128MiB"}, free={"memory_max": "none"}, said={})
    found = {}
    with daemon.client() as client:
        for queue in ("free", "said", "unnamed"):
            task = client.submit("holds", {"name": "go"}, queue=queue)
            found[queue] = limits(daemon, daemon.reached(task.id, "holds").pid)
    daemon.open_gate("go")
    assert found == {
        "free": ("max", "max"),
        "said": ("134217728", "max"),
        "unnamed": ("134217728", "max"),
    }


def test_a_reload_brings_limits_for_what_begins_after_it(
    make: Callable[..., GroupedDaemon],
) -> None:
    daemon = make(small={})
    with daemon.client() as client:
        before = client.submit("holds", {"name": "go"}, queue="small")
        old = daemon.reached(before.id, "holds").pid
        client.submit("holds", {"name": "."}, queue="small").result(30)
        daemon.sections["queues"] = {"small": {"memory_max": "64MiB", "pids_max": 30}}
        daemon.write_config()
        daemon.reload()
        after = client.submit("holds", {"name": "go"}, queue="small")
        new = daemon.reached(after.id, "holds").pid
        assert limits(daemon, new) == ("67108864", "30")
        assert limits(daemon, old) == ("max", "max")
        assert daemon.group_of(daemon.pid) == "taskd-master"
        found = {check["name"]: check["ok"] for check in client.status()["checks"]}
        assert found["control groups"] and found["limits of queues"]
        daemon.open_gate("go")
        assert (before.result(30), after.result(30)) == (old, new)


def test_limits_outlive_the_master_also_where_the_next_one_is_started_above_its_workers(
    make: Callable[..., GroupedDaemon],
) -> None:
    """A service manager starts it in the unit's own group, which may hold no process while the
    workers' groups have limits: what runs after a service's end has to take these back first."""
    daemon = make(small={"memory_max": "64MiB"})
    with daemon.client() as client:
        task = client.submit("takes", {"size": 200}, queue="small")
        held = client.submit("holds", {"name": "go"}, queue="small")
        worker = daemon.reached(held.id, "holds").pid
        assert task.result(60) == "done"
    daemon.kill()
    failed = daemon.spawn()
    assert failed.wait(30) != 0, "it could be started above groups with limits"
    (daemon.group / "cgroup.subtree_control").write_text("-memory")
    daemon.start()
    with daemon.client() as client:
        assert client.handle(held.id).status().attempt == 1
        eventually(lambda: limits(daemon, worker)[0] == "67108864", "the limit is set again")
        daemon.open_gate("go")
        assert client.handle(held.id).result(30) == worker


def test_a_worker_that_ran_out_of_memory_while_no_master_ran_is_said_to_have(
    make: Callable[..., GroupedDaemon],
) -> None:
    """Where the service manager starts the daemon in a group below the unit's."""
    daemon = make(small={"memory_max": "64MiB"})
    with daemon.client() as client:
        task = client.submit("takes", {"size": 200, "name": "go"}, queue="small")
        worker = daemon.reached(task.id, "takes").pid
    daemon.kill()
    daemon.open_gate("go")
    eventually(lambda: not processes.is_alive(worker), "the worker is killed")
    daemon.start_in = "taskd-master"
    daemon.start()
    with daemon.client() as client:
        again = client.handle(task.id)
        assert again.result(60) == "done"
        reasons = [event["reason"] for event in again.follow() if event["reason"]]
    assert any("used more memory than its queue's memory_max" in reason for reason in reasons)

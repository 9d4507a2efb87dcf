"""kill -9 between two tasks of one worker: the end of the first and the claim of the next are one
commit, and the next is sent later, once the worker is idle. It runs once, whoever dies in between.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

import pytest
from support import processes
from support.daemon import Daemon
from support.waiting import eventually

from taskd.client.blocking import TaskHandle

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")

APP = """
from taskd import task
from side import gate, mark

@task
def work(n: int) -> int:
    mark("begun")
    if n == 0:
        gate("go")
    return n
"""

# What is done to the master at one of its calls after the first task may end: to the sync of the
# commit, to what tells the worker that its end is recorded, to what sends the next task.
KILLED = {
    "commit": "fdatasync:signal=KILL:when=1",
    "noted": "sendto:error=EPIPE:signal=KILL:when=1",
    "run": "sendto:error=EPIPE:signal=KILL:when=2",
}
STOPPED = {"commit": "fdatasync:signal=STOP:when=1", "noted": "sendto:signal=STOP:when=1"}
"""Behind that call. A worker is not to be traced: it would not be used again."""


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    made = new_daemon(queues={"default": {"concurrency": 1}})
    made.constants["taskd.master.recovery.unowned.SWEEP_EVERY"] = 0.2
    return made.with_releases(APP, "r1").start()


@pytest.fixture
def tasks(daemon: Daemon) -> list[TaskHandle]:
    """One that waits in its middle for the gate, and one that waits in the queue."""
    with daemon.client() as client:
        made = [client.submit("work", {"n": n}) for n in range(2)]
    daemon.reached(made[0].id, "begun")
    return [daemon.client().handle(each.id) for each in made]


@contextmanager
def struck(daemon: Daemon, blow: str) -> Iterator[None]:
    """That happens to the master."""
    call = blow.partition(":")[0]
    how = ["strace", "-f", "-p", str(daemon.pid), "-e", f"trace={call}", "-e", f"inject={blow}"]
    log = ["-P", daemon.path("state", "store.db-wal")] if call == "fdatasync" else []
    with subprocess.Popen(
        [*how, *log, "-o", daemon.path("calls")], stderr=subprocess.PIPE, text=True
    ) as tracing:
        assert tracing.stderr is not None
        try:
            assert "attached" in tracing.stderr.readline()
            yield
        finally:
            tracing.kill()


def stop_the_master(daemon: Daemon, at: str) -> None:
    with struck(daemon, STOPPED[at]):
        daemon.open_gate("go")
        eventually(lambda: "stopped by SIGSTOP" in calls(daemon), "the master is struck")
    eventually(
        lambda: (processes.state_and_parent(daemon.pid) or "?")[0] == "T", "it is let go, stopped"
    )


def calls(daemon: Daemon) -> str:
    with open(daemon.path("calls"), encoding="ascii") as file:
        return file.read()


def stored(daemon: Daemon) -> list[tuple[str, int]]:
    """State and attempt of each task, as they are committed."""
    with closing(sqlite3.connect(daemon.path("state", "store.db"))) as raw:
        return raw.execute("select state, attempt from tasks order by id").fetchall()


BETWEEN = [("succeeded", 1), ("running", 1)]


def check(daemon: Daemon, tasks: list[TaskHandle]) -> None:
    assert [task.result(30) for task in tasks] == [0, 1]
    for task in tasks:
        assert daemon.items(task.id) == ["begun"]


@pytest.mark.parametrize("dies", [False, True], ids=["worker lives", "worker dies"])
@pytest.mark.parametrize("at", KILLED)
def test_the_master_dies_before_it_sends_the_next_task(
    daemon: Daemon, tasks: list[TaskHandle], at: str, dies: bool
) -> None:
    pid = daemon.reached(tasks[0].id, "begun").pid
    with struck(daemon, KILLED[at]):
        daemon.open_gate("go")
        assert daemon.process is not None
        assert daemon.process.wait(30) == -signal.SIGKILL
    if dies:
        with suppress(ProcessLookupError):  # it leaves, since no master answers
            os.kill(pid, signal.SIGKILL)
    assert stored(daemon) == BETWEEN
    assert daemon.items(tasks[1].id) == []
    daemon.start()
    check(daemon, tasks)


@pytest.mark.parametrize("at", STOPPED)
def test_the_worker_dies_before_the_next_task_is_sent(
    daemon: Daemon, tasks: list[TaskHandle], at: str
) -> None:
    pid = daemon.reached(tasks[0].id, "begun").pid
    stop_the_master(daemon, at)
    if at == "noted":
        daemon.through([pid])  # it has said that it is idle
        assert stored(daemon) == BETWEEN
    os.kill(pid, signal.SIGKILL)
    os.kill(daemon.pid, signal.SIGCONT)
    check(daemon, tasks)
    assert tasks[1].status().attempt == 2


@pytest.mark.parametrize("dies", ["worker", "master"])
def test_one_of_them_dies_before_the_worker_has_said_that_it_is_idle(
    daemon: Daemon, tasks: list[TaskHandle], dies: str
) -> None:
    pid = daemon.reached(tasks[0].id, "begun").pid
    stop_the_master(daemon, "commit")
    os.kill(pid, signal.SIGSTOP)
    os.kill(daemon.pid, signal.SIGCONT)
    eventually(lambda: stored(daemon) == BETWEEN, "the next task is claimed for the worker")
    if dies == "worker":
        os.kill(pid, signal.SIGKILL)
    else:
        daemon.kill()
        daemon.start()
        assert stored(daemon) == BETWEEN, "the worker lives, and may have begun"
        os.kill(pid, signal.SIGCONT)
    check(daemon, tasks)
    assert tasks[1].status().attempt == 2

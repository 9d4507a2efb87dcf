"""No process may be made any more: what runs goes on, what waits says why, and starts later."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import pytest
from looking import problems, reason, was_told
from support import processes
from support.daemon import Daemon
from support.pids import no_process_more
from support.waiting import eventually

import taskd

APP = """
from taskd import task
from side import gate, mark

@task
def holds(name) -> str:
    mark("holds")
    gate(name)
    return "done"

@task
def quick() -> str:
    return "done"
"""


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    made = new_daemon(queues={"default": {"concurrency": 3}})
    return made.with_releases(APP, "r1", "r2").start()


def test_a_zygote_that_cannot_fork_lets_tasks_wait_and_forks_once_it_can(daemon: Daemon) -> None:
    with daemon.client() as client:
        running = client.submit("holds", {"name": "go"})
        daemon.reached(running.id, "holds")
        with no_process_more(daemon.zygotes()["r1"]):
            waiting = [client.submit("holds", {"name": "go-2"}) for _ in range(3)]
            why = "no worker can be started: cannot start a worker: Resource temporarily"
            eventually(lambda: any(p.startswith(why) for p in problems(daemon)))
            said = f"waits: {why}"  # but for one that has met a worker that was there already
            eventually(lambda: any(reason(daemon, task.id).startswith(said) for task in waiting))
            assert client.handle(running.id).status().state == "running"
        daemon.open_gate("go-2")
        assert [task.result(30) for task in waiting] == ["done"] * 3
        assert [task.status().attempt for task in waiting] == [1, 1, 1]
        daemon.open_gate("go")
        assert running.result(30) == "done"


def test_a_deploy_that_can_start_no_process_is_refused_and_changes_nothing(daemon: Daemon) -> None:
    with daemon.client() as client:
        with no_process_more(daemon.pid):
            with pytest.raises(taskd.Refused, match=r"r2: cannot start: .*Resource temporarily"):
                daemon.reload("r2")
            assert client.submit("quick").result(30) == "done", "the zygote has its own limit"
        assert daemon.reload("r2")["revision"] == "r2"


def test_a_program_that_cannot_be_started_now_is_started_later_and_not_failed(
    daemon: Daemon,
) -> None:
    with daemon.client() as client:
        first = client.submit("holds", {"name": "go"})
        daemon.reached(first.id, "holds")
        zygote = daemon.zygotes()["r1"]
        with processes.stopped(zygote), ExitStack() as alone:  # the program meets no new worker
            for worker in processes.children(zygote):
                alone.enter_context(no_process_more(worker))
            daemon.open_gate("go")
            assert first.result(30) == "done"
            task = client.submit("command", {"argv": ["/bin/echo", "hello"]})
            assert was_told(task, "yet: ")
        assert task.result(30) == 0
        assert task.status().attempt >= 2
    assert daemon.task_log(task.id) == "hello\n"

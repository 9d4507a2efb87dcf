"""No descriptor is left, in the master or in its zygote: everything waits, and nothing ends."""

from __future__ import annotations

import os
import resource
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress

import pytest
from looking import is_between_tasks, problems, reason, was_told
from short import no_descriptor_left
from support import processes
from support.daemon import Daemon, repeated
from support.mounts import Mounted
from support.waiting import eventually

import taskd
from taskd.errors import DeployRefused

APP = """
import os, signal
from taskd import task
from side import attempt, gate, mark

@task
def loop(ctx, count=6) -> int:
    for n in ctx.each("items", range(count)):
        mark(n)
        if n == 2 and attempt() == 1:
            gate("go")
    return count

@task
def quick(text="") -> int:
    mark("quick")
    return len(text)
"""


@pytest.fixture
def daemon(mounted: Callable[..., Mounted]) -> Mounted:
    made = mounted(queues={"default": {"concurrency": 4}})
    made.release("r", APP)
    made.point("r")
    made.start()
    return made


@pytest.mark.parametrize("free", range(5))
def test_whatever_lacks_a_descriptor_in_the_master_waits_for_it(daemon: Mounted, free: int) -> None:
    """Workers die, tasks end and are submitted, a deploy is asked for, clients come and go."""
    with daemon.raw() as raw, daemon.raw() as deploying, ExitStack() as late:
        running = [raw.submit("loop") for _ in range(3)]
        pids = [daemon.reached(task, "2").pid for task in running]
        with no_descriptor_left(daemon.pid, free):
            verdict = deploying.start("reload")
            tasks = [raw.submit("quick", text="x" * n) for n in (0, 10, 100_000)]
            os.kill(pids[0], signal.SIGKILL)
            daemon.kill(signal.SIGHUP)
            for _ in range(free + 1):
                connect(daemon, late)
            daemon.open_gate("go")
            for task in running[1:]:
                daemon.reached(task, "5")
            eventually(lambda: raw.ask("status")["problems"])
            assert raw.ask("status")["pid"] == daemon.pid
        late.close()
        with suppress(taskd.Refused):
            deploying.reply_to(verdict)
    with daemon.client() as client:
        assert [client.handle(task).result(60) for task in running] == [6, 6, 6]
        assert [client.handle(task).result(60) for task in tasks] == [0, 10, 100_000]
        eventually(lambda: not problems(daemon))
        eventually(lambda: deployed(daemon, "r1"), "the deploy that SIGHUP asked for is over")
    done = repeated(daemon.effects())
    assert all(key == (running[0], "2") for key in done), "only the killed one's item at hand"


def deployed(daemon: Daemon, name: str) -> bool:
    try:
        return bool(daemon.reload(name)["revision"] == name)
    except taskd.Refused as refused:
        assert "is under way" in str(refused)
        return False


def connect(daemon: Daemon, late: ExitStack) -> None:
    """One more client, which the daemon has no descriptor for."""
    sock = late.enter_context(socket.socket(socket.AF_UNIX))
    sock.connect(daemon.control)


@pytest.mark.parametrize("free", range(1, 8))
def test_a_deploy_that_lacks_a_descriptor_is_told_so(
    new_daemon: Callable[..., Daemon], free: int
) -> None:
    """At whatever step: who asked for it does not wait until there are some again."""
    daemon = new_daemon(daemon={"prove_timeout": "2s"})
    daemon.constants = {"taskd.master.deploy.plan_questions.PLAN_WITHIN": 2.0}
    daemon.release("r", APP)
    another = daemon.release("another", APP)
    daemon.point("r")
    daemon.start()
    with daemon.raw() as raw, no_descriptor_left(daemon.pid, free):
        try:
            assert raw.ask("reload", release=another)["revision"] == "another"
        except DeployRefused as error:
            assert "open files" in str(error) or "after 2 s" in str(error), error


def test_strangers_leave_the_last_descriptors_to_clients(daemon: Mounted) -> None:
    """Workers have taken all but those; any task can connect to worker.sock, and say nothing."""
    before = daemon.descriptors().total()
    with no_descriptor_left(daemon.pid, 3), ExitStack() as strangers:
        for _ in range(100):
            stranger = strangers.enter_context(socket.socket(socket.AF_UNIX))
            stranger.setblocking(False)
            with suppress(BlockingIOError):  # as many as may wait do
                stranger.connect(os.path.join(daemon.runtime, "worker.sock"))
        eventually(lambda: daemon.descriptors().total() > before, "some are let in")
        for _ in range(3):
            with daemon.raw() as raw:
                assert raw.ask("status")["pid"] == daemon.pid


def test_a_zygote_without_descriptors_tells_a_death_later_and_by_itself(daemon: Mounted) -> None:
    with daemon.client() as client:
        task = client.submit("loop")
        worker = daemon.reached(task.id, "2").pid
        zygote = daemon.zygotes()["r"]
        with no_descriptor_left(zygote):
            os.kill(worker, signal.SIGKILL)
            eventually(lambda: processes.state_and_parent(worker) is None, "it has reaped it")
        daemon.open_gate("go")
        assert task.result(60) == 6
        assert processes.is_alive(zygote)
    assert set(repeated(daemon.effects())) <= {(task.id, "2")}


@pytest.mark.parametrize("free", range(6))
def test_a_zygote_without_descriptors_forks_once_it_has_some(daemon: Mounted, free: int) -> None:
    """``free``: what it has is too little for a worker, which ends at another point each time."""
    with daemon.client() as client:
        zygote = daemon.zygotes()["r"]
        with no_descriptor_left(zygote, free):
            tasks = [client.submit("quick") for _ in range(5)]

            def is_seen() -> bool:
                """What it forks cannot begin: it says so, or dies and cannot be buried either; or
                there is just enough for it."""
                told = reason(daemon, tasks[0].id)
                known = "cannot begin yet" in told or "no worker can be started" in told
                said = "cannot begin: " in daemon.log() or tasks[0].status().state == "succeeded"
                return known or said or bool(processes.zombies([zygote]))

            eventually(is_seen)
            assert processes.is_alive(zygote)
        assert [each.result(60) for each in tasks] == [0] * 5  # in workers that have some
    assert daemon.stop() == 0
    assert "Traceback" not in daemon.log(), "no worker takes it for a fault of its own"


def test_a_program_that_lacks_descriptors_is_started_later_and_not_failed(daemon: Mounted) -> None:
    with daemon.client() as client:
        first = client.submit("loop", {"count": 3})
        daemon.reached(first.id, "2")
        zygote = daemon.zygotes()["r"]
        with processes.stopped(zygote), ExitStack() as short:  # the program meets no new worker
            daemon.open_gate("go")
            assert first.result(30) == 3
            for worker in processes.children(zygote):
                eventually(lambda worker=worker: is_between_tasks(worker))  # type: ignore[misc]
                short.enter_context(no_descriptor_left(worker, free=3))  # for its log alone
            task = client.submit("command", {"argv": ["/bin/echo", "hello"]})
            assert was_told(task, "cannot start '/bin/echo' yet: Too many open files")
        assert task.result(30) == 0
        assert task.status().attempt > 1
    assert daemon.task_log(task.id) == "hello\n"


GREEDY = """
import os
import resource
from taskd import task
from side import mark

@task
def greedy() -> str:
    mark("greedy")
    try:
        while True:
            os.dup(0)
    except OSError:
        return "took them all"
"""


def test_a_task_that_leaves_no_descriptor_has_succeeded_once(
    mounted: Callable[..., Mounted],
) -> None:
    """Its worker cannot see any more whether it left a process behind: its zygote does."""
    daemon = mounted()
    daemon.release("greedy", GREEDY)
    daemon.point("greedy")
    daemon.start()
    with daemon.client() as client:
        zygote = daemon.zygotes()["greedy"]
        resource.prlimit(zygote, resource.RLIMIT_NOFILE, (1100, 1100))
        task = client.submit("greedy")
        assert task.result(60) == "took them all"
        assert (task.status().attempt, task.status().reason) == (1, None)
        assert client.submit("greedy").result(60) == "took them all"
    assert daemon.items(task.id) == ["greedy"]

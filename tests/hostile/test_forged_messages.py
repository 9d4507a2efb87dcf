"""Code in a worker or zygote that speaks on its channel: no word of it makes a task run beside
itself, loses another task, or ends the daemon."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
from support.apps import WAITS
from support.daemon import Daemon
from support.waiting import eventually

import taskd

APP = (
    WAITS
    + """
import os, sys, time
from taskd.protocol import frames
from side import is_open

@task
def quick() -> int:
    return 1

@task
def denies(ctx) -> int:
    mark("began")
    said = {"type": "denied", "task": int(ctx.id), "attempt": ctx.attempt}
    ctx._recorder._control._channel.send(said)
    ctx.progress(1, 1, "has denied")
    gate("end")
    return 1

@task
def idle_before_noted(ctx) -> int:
    control = ctx._recorder._control
    def ended(order, offset, reusable):
        said = {"type": "ended", "task": order.task, "attempt": order.attempt, "offset": offset}
        said["next"] = reusable
        idle = {"type": "idle", "reusable": True}
        control._end = said  # it is said again on another connection
        del control.ended  # the next task's end is true
        control._channel._sock.sendall(frames.encode(said) + frames.encode(idle))
    control.ended = ended
    mark("began")
    gate("end")
    return 1

def after_fork():
    zygote = sys._getframe(1).f_locals["self"]
    for kind in ("exited", "unforked", "forked"):
        if is_open(kind):
            os.unlink(os.path.join(os.environ["TASKD_TEST_GATES"], kind))
            for worker in zygote._children._alive.values():
                zygote._channel.send({"type": kind, "worker": worker, "pid": os.getpid(),
                                      "start": 1, "status": 0, "message": "no"})

os.register_at_fork(after_in_parent=after_fork)
"""
)

PLANS_NONSENSE = """
from taskd.worker import plan
plan.answer = lambda path: ({"checked": 0, "migrated": 0, "refused": [1], "probe": None}, True)
"""


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    made = new_daemon()
    return made.with_releases(APP, "r1").start()


def begun(daemon: Daemon, task: int) -> int:
    return daemon.items(task).count("began")


def test_a_task_that_says_what_no_version_says_is_not_begun_beside_itself(daemon: Daemon) -> None:
    """The master passes over messages of a type that it does not know."""
    with daemon.client() as client:
        task = client.submit("denies")
        eventually(lambda: client.task(task.id).progress, "what it says behind that is heard")
        assert (begun(daemon, task.id), client.task(task.id).attempt) == (1, 1)
        daemon.open_gate("end")
        assert task.result(30) == 1
        assert (begun(daemon, task.id), client.task(task.id).attempt) == (1, 1)


def test_a_worker_that_says_idle_before_its_end_is_recorded_delays_no_other_task(
    daemon: Daemon,
) -> None:
    with daemon.client() as client:
        first = client.submit("idle_before_noted")
        daemon.reached(first.id, "began")
        zygote = daemon.zygotes()["r1"]
        os.kill(zygote, signal.SIGSTOP)  # so that the next task waits for a worker
        second = client.submit("quick")
        daemon.open_gate("end")
        assert first.result(30) == 1
        os.kill(zygote, signal.SIGCONT)
        assert second.result(30) == 1


@pytest.mark.parametrize("kind", ["exited", "unforked", "forked"])
def test_what_a_zygote_says_of_a_living_worker_is_not_believed(daemon: Daemon, kind: str) -> None:
    with daemon.client() as client:
        task = client.submit("waits")
        daemon.reached(task.id, "began")
        daemon.open_gate(kind)
        assert client.submit("quick").result(30) == 1
        assert "not believed worker=" in daemon.log()
        daemon.open_gate("end")
        assert task.result(30) == 1
        assert (begun(daemon, task.id), client.task(task.id).attempt) == (1, 1)


def test_a_release_that_answers_a_plan_with_nonsense_is_refused(daemon: Daemon) -> None:
    daemon.release("r2", APP + PLANS_NONSENSE)
    with daemon.client() as client:
        client.submit("waits")
        with pytest.raises(taskd.Refused, match="its probe worker died"):
            daemon.reload("r2")
        assert client.status()["pid"] == daemon.pid
        assert client.submit("quick").result(30) == 1
        daemon.open_gate("end")

"""An app may put others in the place of Python's primitives, as gevent does: what taskd does beside
a task works all the same, while the task computes."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

import pytest
from support.daemon import Daemon
from support.waiting import eventually

GEVENT = "from gevent import monkey; monkey.patch_all()"

FORBIDDEN = """
import _thread, os, select, signal, socket, sys, threading, time

def guarded(usual):
    def replaced(*arguments, **more):
        if sys._getframe(1).f_globals["__name__"].startswith("taskd."):
            raise RuntimeError("this is the app's")
        return usual(*arguments, **more)
    return replaced

class Socket(socket.socket):
    __init__ = socket.socket.__init__

for owner, names in {
    _thread: "start_new_thread allocate_lock",
    threading: "Lock RLock Condition",
    threading.Thread: "start",
    select: "poll epoll select",
    Socket: "__init__",
    os: "fork waitpid close posix_spawn",
    time: "sleep",
    signal: "signal",
}.items():
    for name in names.split():
        setattr(owner, name, guarded(getattr(owner, name)))
socket.socket = Socket
"""
"""None of these may be called by taskd's own code."""

APP = """
PATCH
import os, signal
from side import attempt, gate, is_open, mark
from taskd import task

@task
def computes(ctx) -> int:
    mark("begun")
    number = 0
    while not is_open("enough"):  # never waits
        number += 1
        ctx.progress(number, None, "at work")
        ctx.checkpoint()
    return number

@task(on_deploy="checkpoint")
def moves(ctx) -> str:
    mark("begun")
    while not is_open("enough"):
        ctx.checkpoint()
        if os.environ["TASKD_REVISION"] == "r2":
            break
    return os.environ["TASKD_REVISION"]

@task
def dies() -> int:
    if attempt() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return attempt()
"""

GREENLETS = """
@task
def waits_together() -> int:
    import gevent, os, time
    gevent.joinall([gevent.spawn(time.sleep, 0.1) for _ in range(50)], raise_error=True)
    return os.getpid()
"""


@pytest.fixture(params=["gevent", "others of its own"])
def daemon(new_daemon: Callable[..., Daemon], request: pytest.FixtureRequest) -> Daemon:
    if request.param == "gevent":
        pytest.importorskip("gevent")
    made = new_daemon(daemon={"cancel_grace": 600})
    for name in ("r1", "r2"):
        patch = GEVENT if request.param == "gevent" else FORBIDDEN
        made.release(name, APP.replace("PATCH", patch))
    made.point("r1")
    return made.start()


def test_a_task_that_computes_is_heard_and_can_be_cancelled(daemon: Daemon) -> None:
    with daemon.client() as client:
        task = client.submit("computes")
        eventually(lambda: task.status().progress, "its progress is told")
        task.cancel()
        assert task.wait(30).state == "cancelled"


def test_a_deploy_moves_it(daemon: Daemon) -> None:
    with daemon.client() as client:
        task = client.submit("moves")
        daemon.reached(task.id, "begun")
        daemon.reload("r2")
        assert task.result(30) == "r2"


def test_the_next_daemon_takes_it_over(daemon: Daemon) -> None:
    with daemon.client() as client:
        task = client.submit("computes")
        daemon.reached(task.id, "begun")
        daemon.kill(signal.SIGKILL)
        daemon.start()
        task.cancel()
        assert task.wait(30).state == "cancelled"


def test_a_death_is_noticed(daemon: Daemon) -> None:
    with daemon.client() as client:
        assert client.submit("dies").result(30) == 2


def test_a_program_runs_to_its_end(daemon: Daemon) -> None:
    program = [sys.executable, "-c", "print('printed')"]
    with daemon.client() as client:
        task = client.submit("command", {"argv": program})
        assert task.wait(30).state == "succeeded"
    assert daemon.task_log(task.id) == "printed\n"


def test_what_a_task_does_with_gevent_works(new_daemon: Callable[..., Daemon]) -> None:
    pytest.importorskip("gevent")
    made = new_daemon(queues={"default": {"concurrency": 1}})
    made.with_releases(APP.replace("PATCH", GEVENT) + GREENLETS, "r1")
    with made.start().client() as client:
        pids = {client.submit("waits_together").result(30) for _ in range(3)}
        made.through(pids)
    assert "not used again" not in made.log()

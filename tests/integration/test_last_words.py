"""What a task's log says of its end, and ends that are not the task's own doing."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
from support.daemon import Daemon
from support.waiting import eventually

from taskd import Secret

APP = r"""
import ctypes, os, signal, sys, time
from taskd import task
from side import attempt, gate, mark

def inner(what):
    if what == "raises":
        raise ValueError("its own text")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    raise ValueError("past a log that it has turned away")

@task(retries=1)
def fails(what: str) -> None:
    print("before")
    inner(what)

@task
async def fails_later() -> None:
    inner("raises")

@task
def tells(password: object) -> None:
    raise ValueError(f"cannot log in with {password.reveal()}")

def dies(how):
    if how == "segfault":
        ctypes.string_at(0)
    os.abort()

@task
def crashes(how: str) -> None:
    if attempt() == 1:
        dies(how)

@task
def works(ctx) -> int:
    for n in ctx.each("items", range(4)):
        mark(n)
        if n == 2 and attempt() == 1:
            gate("never")
    return ctx.attempt

@task
def prints() -> None:
    print("caf\u00e9 \ud800")
    print("caf\u00e9", file=sys.stderr)

@task
def ready() -> int:
    mark("begin")
    return os.getpid()
"""


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    made = new_daemon(queues={"default": {"concurrency": 1}})
    return made.with_releases(APP, "r1")


@pytest.mark.parametrize("what", ["raises", "turned"])
def test_a_failure_leaves_its_traceback_in_the_log_once_an_attempt(
    daemon: Daemon, what: str
) -> None:
    task = daemon.start().client().submit("fails", {"what": what})
    error = task.wait(30).error
    assert error is not None
    assert "in inner" in error["traceback"]
    assert daemon.task_log(task.id) == f"before\n{error['traceback']}" * 2


def test_an_async_tasks_failure_leaves_its_traceback_in_the_log(daemon: Daemon) -> None:
    task = daemon.start().client().submit("fails_later")
    error = task.wait(30).error
    assert error is not None
    assert daemon.task_log(task.id) == error["traceback"]


def test_the_traceback_in_the_log_shows_no_secret(daemon: Daemon) -> None:
    task = daemon.start().client().submit("tells", {"password": Secret("hunter2")})
    task.wait(30)
    assert "ValueError: cannot log in with ••••" in daemon.task_log(task.id)
    assert "hunter2" not in daemon.task_log(task.id)


def test_the_log_of_a_program_is_the_programs_alone(daemon: Daemon) -> None:
    task = daemon.start().client().submit("command", {"argv": ["sh", "-c", "echo no; exit 3"]})
    assert task.wait(30).state == "failed"
    assert daemon.task_log(task.id) == "no\n"


@pytest.mark.parametrize(
    ("how", "says"),
    [("segfault", "Segmentation fault"), ("abort", "Aborted")],
)
def test_a_crash_leaves_the_python_frames_in_the_tasks_log(
    daemon: Daemon, how: str, says: str
) -> None:
    task = daemon.start().client().submit("crashes", {"how": how})
    assert task.wait(30).state == "succeeded"
    log = daemon.task_log(task.id)
    assert f"Fatal Python error: {says}" in log
    assert "in dies" in log
    assert "Fatal Python error" not in daemon.log()


def test_an_interrupt_to_a_worker_is_a_death_and_its_task_goes_on(daemon: Daemon) -> None:
    task = daemon.start().client().submit("works")
    os.kill(daemon.reached(task.id, "2").pid, signal.SIGINT)
    assert task.result(30) == 2
    assert daemon.items(task.id) == ["0", "1", "2", "2", "3"]


@pytest.mark.parametrize(
    ("extra", "printed"),
    [
        ({"PYTHONIOENCODING": "ascii"}, r"caf\xe9 \ud800"),
        ({"PYTHONIOENCODING": "utf-8:strict"}, r"café \ud800"),
        ({"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, r"caf\xe9 \ud800"),
    ],
)
def test_what_a_logs_encoding_has_no_characters_for_fails_no_print(
    daemon: Daemon, extra: dict[str, str], printed: str
) -> None:
    daemon.extra = extra
    task = daemon.start().client().submit("prints")
    assert task.wait(30).state == "succeeded"
    first, second = daemon.task_log(task.id).splitlines()
    assert first == printed
    assert second == printed.partition(" ")[0]


def test_a_task_that_is_cancelled_before_its_worker_begins_with_it_does_not_begin(
    new_daemon: Callable[..., Daemon],
) -> None:
    """The only worker waits for a task, and is stopped while it is sent one."""
    made = new_daemon(app={"max_workers": 1}, queues={"default": {"concurrency": 1}})
    client = made.with_releases(APP, "r1").start().client()
    pid = client.submit("ready").result(30)
    made.through([pid])
    os.kill(pid, signal.SIGSTOP)
    try:
        task = client.submit("ready")
        sent = f"running task={task.id} attempt=1 worker="
        eventually(lambda: sent in made.log(), "it is sent")
        task.cancel()
    finally:
        os.kill(pid, signal.SIGCONT)
    assert task.wait(30).state == "cancelled"
    assert made.items(task.id) == []
    assert client.submit("ready").result(30) == pid, "the same worker goes on"

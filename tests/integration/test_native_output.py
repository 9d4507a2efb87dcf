"""What native code prints by C's stdio is in its own task's log, all of it, and in no other."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from support.daemon import NOT_GIVEN, Daemon
from support.waiting import eventually

APP = r"""
import ctypes, os, signal
from side import attempt, gate, mark
from taskd import task

libc = ctypes.CDLL(None)
libc.printf(b"import %s\n", b"." * 80)
libc.printf(b"import without an end of line")

@task
def prints(word: str, count: int) -> None:
    for number in range(count):
        libc.printf(b"%s-%d %s\n", word.encode(), number, b"." * 80)
    libc.printf(b"%s-end", word.encode())

@task
def dies() -> None:
    if attempt() == 1:
        libc.printf(b"the last line\n")
        os.kill(os.getpid(), signal.SIGKILL)

@task
def forks(word: str) -> int:
    child = os.fork()
    if child == 0:
        libc.printf(b"%s without an end of line", word.encode())
        return 0
    os.waitpid(child, 0)
    return os.getpid()

@task
def leaves_a_thread() -> None:
    import threading
    libc.printf(b"before the end")
    threading.Thread(target=lambda: gate("never"), daemon=True).start()
"""


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    made = new_daemon(queues={"default": {"concurrency": 1}})
    return made.with_releases(APP, "r1").start()


def test_no_daemon_under_test_is_given_what_hides_it(new_daemon: Callable[..., Daemon]) -> None:
    """C's streams are not buffered in a process whose environment has PYTHONUNBUFFERED."""
    assert "PYTHONUNBUFFERED" in NOT_GIVEN
    assert not set(NOT_GIVEN) & new_daemon().environment().keys()
    assert "PYTHONUNBUFFERED" not in os.environ


def test_every_line_is_in_its_own_tasks_log_and_in_no_other(daemon: Daemon) -> None:
    with daemon.client() as client:
        first = client.submit("prints", {"word": "first", "count": 30})
        second = client.submit("prints", {"word": "second", "count": 300})
        for task in (first, second):  # in one worker, as a rule
            task.result(30)
    for task, word, count in ((first, "first", 30), (second, "second", 300)):
        lines = daemon.task_log(task.id).splitlines()
        assert [line.split()[0] for line in lines] == [
            *(f"{word}-{number}" for number in range(count)),
            f"{word}-end",
        ]


def test_what_is_printed_at_import_is_in_the_daemons_log_once(daemon: Daemon) -> None:
    with daemon.client() as client:
        for word in ("first", "second"):
            task = client.submit("leaves_a_thread")  # each takes a worker of its own
            assert task.wait(30).state == "succeeded"
            assert daemon.task_log(task.id) == "before the end", word
    assert daemon.log().count("import without an end of line") == 1
    assert daemon.log().count("import ...") == 1


def test_a_line_that_was_printed_before_a_kill_is_there(daemon: Daemon) -> None:
    with daemon.client() as client:
        task = client.submit("dies")
        assert task.wait(30).state == "succeeded"
    assert daemon.task_log(task.id).count("the last line") == 1


def test_what_a_forked_child_printed_is_there(daemon: Daemon) -> None:
    with daemon.client() as client:
        task = client.submit("forks", {"word": "child"})
        task.result(30)
    eventually(lambda: daemon.task_log(task.id) == "child without an end of line")

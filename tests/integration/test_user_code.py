"""What tasks may do to their worker: leftovers, threads, and every kind of mischief.

Whatever a task does, it ends in a state that says so, and the tasks after it run as ever.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable

import pytest
from support import processes
from support.daemon import Daemon
from support.waiting import eventually

import taskd

APP = """
import ctypes, os, signal, subprocess, sys, threading, time
from taskd import task
from side import attempt, gate, mark, until_asked

@task
def plain(n: int = 0) -> int:
    mark("plain")
    return os.getpid()

def leave_a_daemon():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            mark(f"leftover-{os.getpid()}")
            while True:
                time.sleep(60)
        os._exit(0)
    os.wait()

@task
def leaves_a_daemon(how: str) -> list:
    if attempt() > 1:
        with open(os.environ["TASKD_TEST_EFFECTS"]) as file:
            pids = [line.split()[1].split("-")[1] for line in file if " leftover-" in line]
        return [pid for pid in pids if os.path.exists(f"/proc/{pid}")]
    leave_a_daemon()
    while not left():
        time.sleep(0.001)
    mark("here")
    if how == "killed":
        gate("never")
    if how == "raises":
        raise ValueError("on purpose")
    return []

def left():
    with open(os.environ["TASKD_TEST_EFFECTS"]) as file:
        return " leftover-" in file.read()

@task
def leaves_a_thread() -> int:
    threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
    return os.getpid()

@task
def forks_and_returns() -> str:
    child = os.fork()
    mark("child" if child == 0 else "parent")
    if child:
        os.waitpid(child, 0)
    return "from the child" if child == 0 else "from the parent"

@task
def forks_and_raises() -> str:
    child = os.fork()
    if child == 0:
        raise ValueError("in the child")
    return f"the child ended {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}"

@task
async def forks_and_returns_later(ctx) -> str:
    child = os.fork()
    if child == 0:
        return "from the child"
    return f"the child ended {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}"

@task
def exits(how: str) -> None:
    mark("begin")
    if how == "sys.exit":
        sys.exit("enough")
    if how == "KeyboardInterrupt":
        raise KeyboardInterrupt
    if how == "segfault":
        ctypes.string_at(0)
    if how == "os._exit":
        os._exit(0)
    if how == "abort":
        os.abort()
    if how == "recursion":
        exits.fn(how)

@task
def closes_descriptors(low: int) -> str:
    mark("begin")
    os.closerange(low, 4096)
    return "closed"

@task
def closes_and_opens(ctx) -> list:
    # afterwards, every number that was one of ours stands for a file of the task's own
    taken = [int(name) for name in os.listdir("/proc/self/fd") if int(name) > 2]
    os.closerange(3, 4096)
    theirs = str(ctx.scratch / "theirs")
    first = os.open(theirs, os.O_RDWR | os.O_CREAT)
    os.write(first, b"theirs alone")
    for number in taken:
        os.dup2(first, number)
    mark(f"made:{ctx.step('made', attempt)}")
    for n in ctx.each("items", range(100)):
        ctx.state["last"] = n
        ctx.progress(n)
    with open(theirs, "rb") as file:
        return [attempt(), ctx.state["last"], file.read()]

@task
def closes_and_saves(ctx) -> str:
    mark("begin")
    if attempt() == 1:
        os.closerange(3, 4096)
    ctx.step("saved", int)
    return "saved"

@task
def ignores_signals() -> str:
    for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    return "deaf"

@task
def signals() -> list:
    ignored = [n.name for n in signal.Signals if signal.getsignal(n) == signal.SIG_IGN]
    blocked = [n.name for n in signal.pthread_sigmask(signal.SIG_BLOCK, [])]
    return [sorted(ignored), blocked]

@task
def becomes_another_program() -> None:
    mark("begin")
    os.execv("/bin/sh", ["sh", "-c", "exit 7"])
"""


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    made = new_daemon(app={"tasks_per_worker": 3}, queues={"default": {"concurrency": 1}})
    return made.with_releases(APP, "r1", "r2").start()


def all_is_well(daemon: Daemon) -> None:
    """Other tasks run as ever, on workers that live."""
    client = daemon.client()
    for _ in range(4):
        assert client.submit("plain").result(30) > 0


# ── leftovers ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", ["returns", "raises", "killed"])
def test_a_daemon_that_a_task_left_is_gone_before_its_attempt_is_over(
    daemon: Daemon, how: str
) -> None:
    task = daemon.client().submit("leaves_a_daemon", {"how": how})
    worker = daemon.reached(task.id, "here").pid
    (leftover,) = {
        effect.pid for effect in daemon.effects(task.id) if effect.item.startswith("leftover")
    }
    if how == "killed":
        assert processes.is_alive(leftover)
        os.kill(worker, signal.SIGKILL)
        assert task.result(30) == [], "attempt 2 found it gone when it began"
    info = task.wait(30)
    assert not processes.is_alive(leftover)
    assert info.state == {"returns": "succeeded", "raises": "failed", "killed": "succeeded"}[how]
    all_is_well(daemon)


def test_a_daemon_left_by_a_worker_whose_zygote_died_too_is_gone(daemon: Daemon) -> None:
    task = daemon.client().submit("leaves_a_daemon", {"how": "killed"})
    worker = daemon.reached(task.id, "here").pid
    os.kill(daemon.zygotes()["r1"], signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    assert task.result(30) == []


# ── workers are used again ───────────────────────────────────────────────────────────────────


def test_a_worker_is_used_again_up_to_the_configured_number_of_tasks(daemon: Daemon) -> None:
    """Not always in a row: a result may be out before its worker is free again, and then another
    is started."""
    client = daemon.client()
    tasks_of = Counter(client.submit("plain").result(30) for _ in range(30))
    assert max(tasks_of.values()) == 3
    used_up = [pid for pid, count in tasks_of.items() if count == 3]
    eventually(lambda: not any(map(processes.is_alive, used_up)), "they end")


def test_a_worker_with_a_thread_left_is_not_used_again(daemon: Daemon) -> None:
    client = daemon.client()
    first = client.submit("leaves_a_thread").result(30)
    assert client.submit("plain").result(30) != first
    eventually(lambda: not processes.is_alive(first), "it ends")


def test_a_task_finds_signals_as_a_fresh_process_has_them(daemon: Daemon) -> None:
    client = daemon.client()
    fresh = client.submit("signals").result(30)
    assert fresh[1] == []
    assert set(fresh[0]) <= {"SIGPIPE", "SIGXFSZ"}, "what Python itself ignores"


def test_a_task_that_ignores_every_signal_does_not_keep_its_worker_from_ending(
    daemon: Daemon,
) -> None:
    assert daemon.client().submit("ignores_signals").result(30) == "deaf"
    all_is_well(daemon)


# ── mischief ─────────────────────────────────────────────────────────────────────────────────


def test_a_child_that_returns_from_the_task_is_not_a_second_worker(daemon: Daemon) -> None:
    client = daemon.client()
    task = client.submit("forks_and_returns")
    assert task.result(30) == "from the parent"
    assert sorted(daemon.items(task.id)) == ["child", "parent"]
    assert client.submit("forks_and_raises").result(30) == "the child ended 1"
    assert client.submit("forks_and_returns_later").result(30) == "the child ended 0"
    all_is_well(daemon)


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("sys.exit", "SystemExit: enough"),
        ("KeyboardInterrupt", "KeyboardInterrupt"),
        ("recursion", "RecursionError"),
    ],
)
def test_a_task_that_exits_fails_and_its_worker_lives(daemon: Daemon, how: str, error: str) -> None:
    with pytest.raises(taskd.TaskFailed, match=error):
        daemon.client().submit("exits", {"how": how}).result(30)
    all_is_well(daemon)


@pytest.mark.parametrize(
    ("how", "death"),
    [
        ("segfault", "its process was killed by SIGSEGV"),
        ("abort", "its process was killed by SIGABRT"),
        ("os._exit", "its process ended by itself with exit status 0"),
    ],
)
def test_a_task_that_ends_its_process_again_and_again_is_held(
    daemon: Daemon, how: str, death: str
) -> None:
    task = daemon.client().submit("exits", {"how": how})
    info = task.wait(30)
    assert info.state == "held"
    assert info.reason == f"died 3 times at the same place; the last time {death}"
    assert daemon.items(task.id) == ["begin"] * 3
    all_is_well(daemon)


def test_a_task_that_becomes_another_program_has_died(daemon: Daemon) -> None:
    task = daemon.client().submit("becomes_another_program")
    info = task.wait(30)
    assert (info.state, daemon.items(task.id)) == ("held", ["begin"] * 3)
    assert "exit status 7" in str(info.reason)
    all_is_well(daemon)


@pytest.mark.parametrize("low", [0, 3])
def test_a_task_that_closes_all_descriptors_succeeds_all_the_same(daemon: Daemon, low: int) -> None:
    task = daemon.client().submit("closes_descriptors", {"low": low})
    assert task.result(30) == "closed"
    assert daemon.items(task.id) == ["begin"]
    all_is_well(daemon)


def test_a_task_that_closed_its_slot_is_saved_all_the_same(daemon: Daemon) -> None:
    task = daemon.client().submit("closes_and_saves")
    assert task.result(30) == "saved"
    assert task.status().attempt == 1
    all_is_well(daemon)


def test_what_a_task_opens_in_place_of_our_descriptors_is_left_alone(daemon: Daemon) -> None:
    task = daemon.client().submit("closes_and_opens")
    assert task.result(30) == [1, 99, b"theirs alone"]
    all_is_well(daemon)

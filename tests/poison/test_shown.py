"""What ``taskctl show`` says of a process that is in trouble, or was."""

from __future__ import annotations

import os
import re
import signal

from support.beside import Beside
from support.daemon import Daemon
from support.small_memory import small_memory
from support.waiting import eventually

POISON = r"""
@task
def stops_itself() -> str:
    mark("begun")
    os.kill(os.getpid(), signal.SIGSTOP)
    return "went on"

@task
def becomes_a_program(gates: str) -> None:
    mark("begun")
    script = f"while [ ! -e {gates}/go ]; do sleep 0.01; done; exit 7"
    os.execvp("sh", ["sh", "-c", script])

@task
def devours(procs: str) -> None:
    with open(procs, "w") as file:
        file.write(str(os.getpid()))
    mark("begun")
    held = []
    while True:
        held.append(bytearray(b"x" * (1 << 20)))

@task
def has_a_child_that_devours(procs: str) -> int:
    child = os.fork()
    if child == 0:
        devours.fn(procs)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

@task
def is_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
"""

LIKELY = re.compile(
    r"its process was killed by SIGKILL; in the \d+ s before, the kernel of this machine killed "
    r"(a process|\d+ processes) for want of memory: probably this one"
)


def oom_kills() -> int:
    """On the whole machine, so far."""
    with open("/proc/vmstat", encoding="ascii") as file:
        return next((int(line.split()[1]) for line in file if line.startswith("oom_kill ")), 0)


def test_a_task_that_stops_itself_is_shown_so_and_goes_on_when_it_is_continued(
    daemon: Daemon, beside: Beside
) -> None:
    task = daemon.client().submit("stops_itself")
    pid = daemon.reached(task.id, "begun").pid
    shown = f"its process {pid} is stopped, and goes on after SIGCONT"
    eventually(lambda: task.status().reason == shown, "it is shown")
    os.kill(pid, signal.SIGCONT)
    assert task.result(30) == "went on"


def test_a_task_that_became_another_program_is_shown_so_and_let_run(
    daemon: Daemon, beside: Beside
) -> None:
    task = daemon.client().submit("becomes_a_program", {"gates": daemon.path("gates")})
    pid = daemon.reached(task.id, "begun").pid
    shown = (
        f"its process {pid} is not connected to the daemon, and is the program 'sh' now; it is let "
        "run"
    )
    eventually(lambda: task.status().reason == shown, "it is shown")
    assert task.status().attempt == 1
    daemon.open_gate("go")
    info = task.wait(30)
    assert (info.state, info.attempt) == ("held", 3)
    assert "its process ended by itself with exit status 7" in str(info.reason)


def test_a_task_that_the_kernel_ends_for_want_of_memory_says_that_this_is_likely(
    daemon: Daemon, beside: Beside
) -> None:
    with small_memory(64 << 20) as procs:
        task = daemon.client().submit("devours", {"procs": procs})
        info = task.wait(60)
        assert (info.state, info.attempt) == ("held", 3)
        assert LIKELY.search(str(info.reason)), info.reason
        assert [e["reason"] for e in task.follow() if LIKELY.search(str(e["reason"]))][2:] == [
            info.reason
        ]


def test_a_child_that_the_kernel_ends_for_want_of_memory_is_the_tasks_own_affair(
    daemon: Daemon, beside: Beside
) -> None:
    with small_memory(64 << 20) as procs:
        task = daemon.client().submit("has_a_child_that_devours", {"procs": procs})
        assert task.result(60) == -signal.SIGKILL


def test_a_kill_without_a_lack_of_memory_is_a_kill(daemon: Daemon, beside: Beside) -> None:
    """Another test on this machine may lack some just then: once more."""
    count = None
    while count != (count := oom_kills()):
        info = daemon.client().submit("is_killed").wait(30)
    assert str(info.reason).endswith("the last time its process was killed by SIGKILL")

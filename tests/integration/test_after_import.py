"""Whatever an app's import leaves changed in its process, its deploy means that its tasks run.

Deaths are noticed, and the tasks find their standard descriptors, in forked workers and in those
that are started afresh.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from support.daemon import Daemon

APP = """
import os, signal, subprocess, sys, time
from taskd import task

@task
def dies(ctx) -> int:
    if ctx.attempt < 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return ctx.attempt

@task
def prints() -> bytes:
    print("printed")
    subprocess.run(["sh", "-c", "echo by a program; cat"], check=True)
    return subprocess.run(["cat"], capture_output=True, check=True).stdout

def late(*_):
    raise RuntimeError("in the zygote's loop")

IMPORT
"""

MISCHIEF = {
    "a blocked SIGCHLD": "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])",
    "every signal blocked": "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())",
    "SIGCHLD ignored": "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
    "0, 1 and 2 closed": "for fd in (0, 1, 2): os.close(fd)",
    "1 closed, and a file in its place": "os.close(1); data = open('/dev/null')",
    "its streams closed": "sys.stdout.close(); sys.stdin.close(); os.close(2)",
    "a wakeup descriptor": "fds = os.pipe2(os.O_NONBLOCK); signal.set_wakeup_fd(fds[1])",
    "a timer": "signal.signal(signal.SIGPROF, late); signal.setitimer(signal.ITIMER_PROF, 9, 0.01)",
    "a timer that would end it": "signal.setitimer(signal.ITIMER_REAL, 5, 0.01)",
}

LATE = {"a timer that would end it": 5.0}
"""Seconds after which the harm comes: longer than an import takes on a busy machine."""

PRINTS_NOT = {"its streams closed"}
"""Where a print is the app's own error."""


def started(new_daemon: Callable[..., Daemon], at_import: str, fork: str = "auto") -> Daemon:
    made = new_daemon(app={"fork": fork}, queues={"default": {"concurrency": 1}})
    return made.with_releases(APP.replace("IMPORT", at_import), "r1").start()


@pytest.mark.parametrize("fork", ["auto", "never"])
@pytest.mark.parametrize("what", MISCHIEF)
def test_deaths_are_noticed_and_tasks_begin(
    new_daemon: Callable[..., Daemon], what: str, fork: str
) -> None:
    daemon = started(new_daemon, MISCHIEF[what], fork)
    with daemon.client() as client:
        zygotes = daemon.zygotes()
        assert client.submit("dies").result(30) == 2
        time.sleep(LATE.get(what, 0.0))
        if what not in PRINTS_NOT:
            task = client.submit("prints")
            assert task.result(30) == b""
            assert daemon.task_log(task.id) == "printed\nby a program\n"
        assert daemon.zygotes() == zygotes, "the zygote has lived on"


def test_a_death_whose_signal_is_missed_is_noticed_a_little_later(
    new_daemon: Callable[..., Daemon],
) -> None:
    block = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])"
    daemon = started(new_daemon, f"os.register_at_fork(after_in_parent=lambda: {block})")
    with daemon.client() as client:
        assert client.submit("dies").result(30) == 2

"""Tasks that cannot be asked: each is cancelled by force, with all that it has started."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
from support import processes
from support.beside import APP, Beside
from support.daemon import Daemon
from support.reasons import told

POISON = r"""
import asyncio, re, subprocess

libc = ctypes.CDLL(None, use_errno=True)
holding = ctypes.PyDLL(None)  # its functions keep the interpreter's lock

def for_ever():
    while True:
        time.sleep(3600)

def child(work):
    pid = os.fork()
    if pid == 0:
        stray()
        try:
            work()
        finally:
            os._exit(0)
    return pid

def deaf():
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())

def ignore_everything():
    deaf()
    for_ever()

def catch_everything():
    while True:
        try:
            for_ever()
        except BaseException:
            pass

def hold_the_lock():
    holding.sleep(3600)

def count():
    return len(str(7 ** (7 ** 11)))

def search():
    re.match(r"(a+)+$", "a" * 60 + "b")

def wait_in_c():
    deaf()
    libc.pause()
    libc.sleep(3600)

def stop_itself():
    os.kill(os.getpid(), signal.SIGSTOP)
    for_ever()

def daemonize():
    def second():
        os.setsid()
        child(lambda: (deaf(), os.closerange(0, 4096), os.chdir("/"), for_ever()))
    child(second)
    for_ever()

def crowd(depth=6):
    def more():
        os.setpgid(0, 0)
        deaf()
        crowd(depth - 1)
        for_ever()
    for _ in range(2):
        if depth:
            child(more)
    if depth == 6:
        for_ever()

def flee():
    # each process lives just long enough to start the next
    def on():
        stop = time.monotonic() + 120
        while time.monotonic() < stop:
            if os.fork():
                os._exit(0)
            os.setsid()
    if os.fork() == 0:
        on()
        os._exit(0)
    for_ever()

def stopped_children():
    pids = [child(for_ever) for _ in range(3)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    for_ever()

def threads():
    for _ in range(20):
        threading.Thread(target=for_ever).start()
    threading.Thread(target=count).start()
    for_ever()

def close_everything():
    os.closerange(0, 4096)
    for_ever()

def become_a_program():
    child(for_ever)
    os.execvp("sh", ["sh", "-c", "trap '' TERM INT HUP; while :; do sleep 1; done"])

def programs():
    script = "trap '' TERM; (setsid sh -c 'trap \"\" TERM HUP; while :; do sleep 1; done' &) ; wait"
    subprocess.run(["env", "-i", "sh", "-c", script])
    for_ever()

class Hangs:
    def __del__(self):
        for_ever()

def hang_at_the_end():
    Hangs()

class Stuck:
    closed = False
    def write(self, text):
        return len(text)
    flush = staticmethod(for_ever)

def hang_in_stdout():
    sys.stdout = Stuck()

def other_processes_namespace():
    if libc.unshare(0x20000000):
        raise OSError(ctypes.get_errno(), "unshare")
    for _ in range(2):  # the first is the new namespace's init
        if os.fork() == 0:
            for_ever()
    for_ever()

def no_subreaper():
    libc.prctl(36, 0, 0, 0, 0)
    daemonize()

WAYS = {
    "ignores everything": ignore_everything,
    "catches everything": catch_everything,
    "holds the lock": hold_the_lock,
    "counts": count,
    "searches": search,
    "waits in C": wait_in_c,
    "stops itself": stop_itself,
    "daemonizes": daemonize,
    "a crowd": crowd,
    "flees": flee,
    "stopped children": stopped_children,
    "threads": threads,
    "closes everything": close_everything,
    "another program": become_a_program,
    "programs": programs,
    "hangs at the end": hang_at_the_end,
    "hangs in stdout": hang_in_stdout,
    "namespace of processes": other_processes_namespace,
    "no subreaper": no_subreaper,
}

@task(queue="many")
def refuses(way: str) -> None:
    mark("begun")
    WAYS[way]()

@task(queue="many")
async def refuses_later(way: str) -> None:
    mark("begun")
    WAYS[way]()
"""

WAYS = [
    "ignores everything", "catches everything", "holds the lock", "counts", "searches",
    "waits in C", "stops itself", "daemonizes", "a crowd", "flees", "stopped children", "threads",
    "closes everything", "another program", "programs", "hangs at the end", "hangs in stdout",
    "namespace of processes", "no subreaper",
]  # fmt: skip


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    made = new_daemon(daemon={"cancel_grace": 0.3}, queues={"many": {"concurrency": 40}})
    for name in ("r1", "r2"):
        made.release(name, APP + POISON)
    made.point("r1")
    return made.start()


@pytest.mark.parametrize("name", ["refuses", "refuses_later"])
def test_a_task_that_cannot_be_asked_is_cancelled_by_force_with_all_that_it_started(
    daemon: Daemon, beside: Beside, name: str
) -> None:
    client = daemon.client()
    tasks = {way: client.submit(name, {"way": way}) for way in WAYS}
    workers = {way: daemon.reached(task.id, "begun").pid for way, task in tasks.items()}
    for task in tasks.values():
        task.cancel()
    for way, task in tasks.items():
        info = task.wait(60)
        assert (way, info.state) == (way, "cancelled")
        assert info.reason == "cancelled by user 0; did not leave in 0.3 s, and was killed"
        assert not processes.is_alive(workers[way])
        assert [e["state"] for e in task.follow()] == ["queued", "running", "cancelled"]
        assert f"cancelled task={task.id} " in daemon.log(), "it is logged as what it is"
        assert f"queued task={task.id} " not in daemon.log()


def test_a_cancelled_task_that_dies_by_itself_says_how(daemon: Daemon, beside: Beside) -> None:
    task = daemon.client().submit("refuses", {"way": "ignores everything"})
    worker = daemon.reached(task.id, "begun").pid
    task.cancel()
    os.kill(worker, signal.SIGKILL)
    info = task.wait(30)
    assert info.state == "cancelled"
    assert told(info.reason) in (
        "cancelled by user 0; its process was killed by SIGKILL",
        "cancelled by user 0; did not leave in 0.3 s, and was killed",
    )

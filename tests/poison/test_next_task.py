"""What a task changes of its process, and leaves behind in it: the next task must not meet it."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from support import processes
from support.beside import APP, Beside
from support.daemon import Daemon
from support.waiting import eventually

POISON = r"""
import asyncio, atexit, builtins, contextvars, decimal, gc, io, locale, select, socket, subprocess
import tempfile, types
import taskd.worker.control, taskd.worker.process, taskd.worker.attempt, taskd.tasks

HERE = contextvars.ContextVar("HERE", default="clean")
libc = ctypes.CDLL(None, use_errno=True)

def forget(*args, **kwargs):
    return None

class Stuck:
    def write(self, text):
        return len(text)
    closed = False
    def flush(self):
        raise KeyboardInterrupt

class Hangs:
    def __init__(self):
        self.me = self
    def __del__(self):
        raise_when_late()

def raise_when_late():
    mark("deleted")

def tick():
    def late(*_):
        raise RuntimeError("too late")
    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, 1.0, 0.0001)

def limits():
    for name in ("FSIZE", "NOFILE", "AS", "STACK", "CORE", "CPU"):
        what = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(what)[1]
        soft = {"FSIZE": 10, "NOFILE": 20, "CPU": 3}.get(name, 1 << 30)
        resource.setrlimit(what, (soft, hard))

def become_nobody():
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)

def change_root():
    place = tempfile.mkdtemp()
    os.chroot(place)
    os.chdir("/")

def unshare(flags):
    if libc.unshare(flags):
        raise OSError(ctypes.get_errno(), "unshare")

def close_streams():
    sys.stdout.close()
    sys.stderr.close()

def exit_handlers():
    atexit.register(time.sleep, 3600)
    atexit.register(os.fork)

def patch(owner, name, value=forget):
    setattr(owner, name, value)

CHANGES = {
    "directory": lambda: os.chdir("/"),
    "umask": lambda: os.umask(0),
    "limits": limits,
    "environment": lambda: os.environ.update(PATH="/nowhere", TASKD_SCRATCH="/nowhere"),
    "locale": lambda: locale.setlocale(locale.LC_ALL, "C.UTF-8"),
    "time zone": lambda: (os.environ.update(TZ="Asia/Tokyo"), time.tzset()),
    "modules": lambda: sys.modules.pop("json", None) or sys.modules.pop("app"),
    "module replaced": lambda: sys.modules.update(subprocess=types.ModuleType("subprocess")),
    "path": lambda: sys.path.insert(0, "/nowhere"),
    "stdout": lambda: patch(sys, "stdout", io.StringIO()),
    "stuck stdout": lambda: patch(sys, "stdout", Stuck()),
    "no stdout": lambda: patch(sys, "stdout", None),
    "closed streams": close_streams,
    "redirected": lambda: os.dup2(os.open("/dev/null", os.O_WRONLY), 1),
    "handlers": lambda: [signal.signal(n, lambda *_: None) for n in (1, 2, 10, 15, 17)],
    "ignored": lambda: [signal.signal(n, signal.SIG_IGN) for n in (1, 2, 10, 15, 17)],
    "handler in C": lambda: libc.signal(12, ctypes.cast(libc.getpid, ctypes.c_void_p)),
    "mask": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()),
    "timer": tick,
    "recursion": lambda: sys.setrecursionlimit(100_000),
    "tracing": lambda: (sys.settrace(forget), sys.setprofile(forget)),
    "hooks": lambda: (patch(sys, "excepthook"), patch(threading, "excepthook")),
    "no collector": gc.disable,
    "context": lambda: (HERE.set("dirty"), patch(decimal.getcontext(), "prec", 3)),
    "timeout": lambda: socket.setdefaulttimeout(0.0001),
    "nice": lambda: os.nice(5),
    "nobody": become_nobody,
    "root": change_root,
    "mount namespace": lambda: unshare(0x00020000),
    "pid namespace": lambda: unshare(0x20000000),
    "network namespace": lambda: unshare(0x40000000),
    "no new privileges": lambda: libc.prctl(38, 1, 0, 0, 0),
    "no subreaper": lambda: libc.prctl(36, 0, 0, 0, 0),
    "os patched": lambda: [patch(os, n) for n in ("write", "_exit", "kill")],
    "builtins patched": lambda: patch(builtins, "print"),
    "time patched": lambda: patch(time, "monotonic", lambda: 0.0),
    "taskd patched": lambda: patch(taskd.worker.process, "_attempt"),
    "taskd's class patched": lambda: patch(taskd.worker.control.Control, "next_order"),
    "taskd emptied": lambda: taskd.tasks.registered.clear(),
    "exit handlers": exit_handlers,
    "many descriptors": lambda: [os.dup(0) for _ in range(200)],
    "scratch": lambda: os.rmdir(os.environ["TASKD_SCRATCH"]),
}

@task(queue="one")
def changes(what: str) -> int:
    mark("begin")
    CHANGES[what]()
    return os.getpid()

def look():
    print("hello", flush=True)
    for line in open("/proc/self/status"):
        name, _, value = line.partition(":")
        if name in ("Umask", "Uid", "Gid", "Groups", "SigBlk", "SigIgn", "SigCgt", "NoNewPrivs"):
            yield name, value.strip()
    yield "directory", os.getcwd()
    yield "root", os.path.exists("/proc/self")
    yield "namespaces", [os.readlink(f"/proc/self/ns/{n}") for n in ("mnt", "net", "user", "pid")]
    yield "limits", [list(resource.getrlimit(n)) for n in range(9)]
    yield "environment", [os.environ["PATH"], os.environ.get("TZ"), time.tzname]
    yield "locale", locale.setlocale(locale.LC_ALL)
    yield "modules", [sys.modules[n].__name__ for n in ("app", "subprocess", "os")]
    yield "path", sys.path
    yield "streams", [type(s).__name__ for s in (sys.stdin, sys.stdout, sys.stderr)]
    yield "log", os.path.realpath("/proc/self/fd/1").endswith(os.environ["TASKD_TASK_ID"] + ".log")
    yield "python", [sys.getrecursionlimit(), gc.isenabled(), sys.gettrace(), sys.getprofile()]
    yield "context", [HERE.get(), decimal.getcontext().prec]
    yield "timeout", socket.getdefaulttimeout()
    yield "priority", os.getpriority(os.PRIO_PROCESS, 0)
    yield "patched", [f.__module__ for f in (os.write, os._exit, os.kill, print, time.monotonic)]
    yield "scratch", os.listdir(os.environ["TASKD_SCRATCH"])
    mark("looked")

@task(queue="one")
def looks() -> list:
    return [[name, value if isinstance(value, (str, int, float, list)) else repr(value)]
            for name, value in look()]

# ── what is left in the process ──

@task(queue="one")
def leaves_a_cycle(raises: bool = False) -> int:
    Hangs()
    if raises:
        kept = Hangs()
        raise ValueError("with what it had in hand")
    return os.getpid()

class Slow(Exception):
    def __str__(self):
        while signal.getitimer(signal.ITIMER_REAL)[0]:
            time.sleep(0.01)
        return "as it was raised"

@task(queue="one")
def leaves_a_timer() -> None:
    mark("begin")
    tick()
    raise Slow

@task(queue="one")
def leaves_a_transaction(place: str) -> int:
    import sqlite3
    base = sqlite3.connect(place, isolation_level=None, timeout=0)
    base.execute("create table if not exists t (x)")
    base.execute("begin immediate")
    base.execute("insert into t values (1)")
    tempfile.TemporaryFile()
    held = [base]
    held.append(held)
    if base.execute("select count(*) from t").fetchone() == (1,):
        raise ValueError("with an open transaction in hand")

@task(queue="one", retries=2)
def hides_its_children() -> list:
    with open(os.environ["TASKD_TEST_EFFECTS"]) as file:
        told = [line.split()[1].split("-")[1] for line in file if " stray-" in line]
    living = [pid for pid in told if os.path.exists(f"/proc/{pid}")]
    if attempt() == 3:
        return living
    libc.prctl(36, 0, 0, 0, 0)
    read, write = os.pipe()
    if os.fork() == 0:
        if os.fork() == 0:
            os.setsid()
            stray()
            os.close(write)
            time.sleep(3600)
        os._exit(0)
    os.close(write)
    os.read(read, 1)
    os.wait()
    raise ValueError(f"again; alive: {living}")

@task(queue="one")
def leaves_a_restless_thread(n: int) -> int:
    line = f"{os.environ['TASKD_TASK_ID']} restless {attempt()} r1 {os.getpid()}\n"
    effects = open(os.environ["TASKD_TEST_EFFECTS"], "a", buffering=1)
    def run():
        while True:
            effects.write(line)
            time.sleep(0.001)
    threading.Thread(target=run).start()
    mark("begin")
    if attempt() < n:
        raise ValueError("again")
    return os.getpid()

leaves_a_restless_thread = task(queue="one", retries=2, name="restless")(
    leaves_a_restless_thread.fn
)

@task(queue="one")
def spoils_its_scratch(ctx) -> str:
    mark("begin")
    if attempt() == 1:
        place = ctx.scratch
        os.rmdir(place)
        with open(place, "w"):
            pass
        os._exit(1)
    return "done"

@task(queue="one")
def removes_its_scratch(ctx) -> str:
    import shutil
    (ctx.scratch / "file").write_text("x")
    shutil.rmtree(ctx.scratch.parent)
    if attempt() == 1:
        os._exit(1)
    (ctx.scratch / "file").write_text("x")
    return "done"
"""

CHANGES = [
    "directory", "umask", "limits", "environment", "locale", "time zone", "modules",
    "module replaced", "path", "stdout", "stuck stdout", "no stdout", "closed streams",
    "redirected", "handlers", "ignored", "handler in C", "mask", "timer", "recursion", "tracing",
    "hooks", "no collector", "context", "timeout", "nice", "nobody", "root", "mount namespace",
    "pid namespace", "network namespace", "no new privileges", "no subreaper",
    "os patched", "builtins patched", "time patched", "taskd patched", "taskd's class patched",
    "taskd emptied", "exit handlers", "many descriptors", "scratch",
]  # fmt: skip


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    """The queue ``one`` runs one task at a time: the next one may get the worker of the last."""
    made = new_daemon(daemon={"cancel_grace": 0.3}, queues={"one": {"concurrency": 1}})
    return made.with_releases(APP + POISON, "r1").start()


def test_whatever_a_task_changes_of_its_process_no_other_task_meets_it(
    daemon: Daemon, beside: Beside
) -> None:
    client = daemon.client()
    clean = client.submit("looks").result(30)
    for what in CHANGES:
        task = client.submit("changes", {"what": what})
        after = client.submit("looks")
        assert (what, task.wait(30).state) == (what, "succeeded")
        assert (what, after.result(30)) == (what, clean)
        assert daemon.task_log(after.id) == "hello\n", what
    assert "Traceback" not in daemon.log(), "no worker has ended by a fault of its own"
    assert daemon.items(1).count("begin") == 0


def test_a_task_that_changes_nothing_leaves_its_worker_to_the_next(daemon: Daemon) -> None:
    """Not always to the very next: a result may be out before its worker is free again, and then
    another is started, which stays as well."""
    client = daemon.client()
    pids = [client.submit("changes", {"what": "scratch"}).result(30) for _ in range(10)]
    assert len(set(pids)) < len(pids)
    daemon.through(pids)
    assert all(processes.is_alive(pid) for pid in pids)
    assert "it is not used again" not in daemon.log()


@pytest.mark.parametrize("raises", [False, True])
def test_what_a_task_leaves_in_memory_is_deleted_before_the_next_task(
    daemon: Daemon, beside: Beside, raises: bool
) -> None:
    task = daemon.client().submit("leaves_a_cycle", {"raises": raises})
    task.wait(30)
    assert daemon.items(task.id) == ["deleted"] * (1 + raises)


def test_a_timer_that_a_task_leaves_does_not_strike_while_its_end_is_recorded(
    daemon: Daemon, beside: Beside
) -> None:
    task = daemon.client().submit("leaves_a_timer")
    info = task.wait(30)
    assert info.error is not None
    assert (info.error["message"], info.attempt) == ("as it was raised", 1)
    daemon.through([daemon.reached(task.id, "begin").pid])
    why = f"task {task.id} has changed its process: users, rights or signals, signal handlers"
    assert f"{why}; it is not used again" in daemon.log()


def test_children_that_a_task_hid_from_its_worker_are_gone_before_its_next_attempt_begins(
    daemon: Daemon, beside: Beside
) -> None:
    task = daemon.client().submit("hides_its_children")
    assert task.result(60) == []
    assert len([item for item in daemon.items(task.id) if item.startswith("stray")]) == 2
    errors = [e["reason"] for e in task.follow() if "again" in str(e["reason"])]
    assert all("alive: []" in reason for reason in errors)


def test_a_transaction_that_a_task_leaves_open_is_rolled_back_with_its_attempt(
    daemon: Daemon, beside: Beside
) -> None:
    client = daemon.client()
    for _ in range(3):
        info = client.submit("leaves_a_transaction", {"place": daemon.path("base")}).wait(30)
        assert "with an open transaction in hand" in str(info.reason), "nor is it locked"


def test_a_thread_that_a_task_leaves_is_gone_before_its_next_attempt_begins(
    daemon: Daemon, beside: Beside
) -> None:
    task = daemon.client().submit("restless", {"n": 3})
    last = task.result(60)
    effects = daemon.effects(task.id)
    assert [e.attempt for e in effects] == sorted(e.attempt for e in effects)
    eventually(lambda: not processes.is_alive(last), "its last worker has ended as well")


def test_a_task_whose_scratch_directory_is_something_else_waits_until_it_is_one(
    daemon: Daemon, beside: Beside
) -> None:
    task = daemon.client().submit("spoils_its_scratch")
    eventually(lambda: "not a directory" in str(task.status().reason), "it says what it waits for")
    os.unlink(daemon.path("state", "scratch", str(task.id)))
    assert task.result(30) == "done"
    assert daemon.items(task.id) == ["begin", "begin"]


def test_a_task_that_removes_its_scratch_finds_it_again_in_the_next_attempt(
    daemon: Daemon, beside: Beside
) -> None:
    assert daemon.client().submit("removes_its_scratch").result(30) == "done"

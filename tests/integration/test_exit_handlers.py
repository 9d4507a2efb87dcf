"""A worker that goes runs what Python runs at the end of a program, within a bound, and nobody's
task waits for it or pays for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support import processes
from support.daemon import Daemon
from support.waiting import eventually

APP = r"""
import atexit, ctypes, logging, logging.handlers, os, queue, signal, sys, threading, time, weakref
from concurrent.futures import ThreadPoolExecutor
from side import gate, mark
from taskd import task

def note(text):
    fd = os.open(os.environ["TASKD_TEST_EFFECTS"] + ".ends", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{text} {os.getpid()}\n".encode())
    os.close(fd)

class Target(logging.Handler):
    def emit(self, record):
        note(record.getMessage())

class Thing:
    pass

thing = Thing()
atexit.register(note, "import")
weakref.finalize(thing, note, "finalize")
log = logging.getLogger("app")
log.addHandler(logging.handlers.MemoryHandler(1000, target=Target()))
log.setLevel("INFO")
log.propagate = False

@task
def plain() -> int:
    log.info("buffered")
    atexit.register(note, "task")
    return os.getpid()

@task
def leaves(what: str) -> int:
    atexit.register(note, "task")
    {
        "a handler that hangs": lambda: atexit.register(time.sleep, 1000),
        "a handler that crashes": lambda: atexit.register(os.kill, os.getpid(), signal.SIGSEGV),
        "a handler that raises": lambda: atexit.register(int, "x"),
        "a handler that exits": lambda: atexit.register(os._exit, 3),
        "a handler that execs": lambda: atexit.register(os.execv, "/bin/sleep", ["sleep", "1000"]),
        "a handler that holds the interpreter": lambda: atexit.register(
            ctypes.PyDLL(None).sleep, 1000
        ),
        "a thread without an end": lambda: threading.Thread(target=gate, args=("never",)).start(),
    }[what]()
    return os.getpid()

@task
def prints_at_its_end() -> int:
    print("in the task")
    atexit.register(print, "said at the end")
    return os.getpid()

reports = queue.Queue()

def send():
    while True:
        report = reports.get()
        time.sleep(0.05)
        note(report)
        reports.task_done()

@task
def fails_and_reports(n: int) -> None:
    threading.Thread(target=send, daemon=True).start()
    atexit.register(reports.join)
    reports.put(f"report-{n}")
    raise ValueError(n)

@task
def leaves_work_in_a_pool() -> int:
    pool = ThreadPoolExecutor(1)
    pool.submit(lambda: (time.sleep(0.1), note("pool")))
    return os.getpid()

def a_process_of_its_own():
    import multiprocessing
    other = multiprocessing.get_context("fork").Process(target=gate, args=("never",), daemon=True)
    other.start()
    return other.pid
"""

BY_IT = {"import", "task", "buffered", "finalize"}


@pytest.fixture
def start(new_daemon: Callable[..., Daemon]) -> Callable[..., Daemon]:
    def made(more: str = "", **app: object) -> Daemon:
        daemon = new_daemon(app=app, queues={"default": {"concurrency": 1}})
        for name in ("r1", "r2"):
            daemon.release(name, APP + more)
        daemon.point("r1")
        return daemon.start()

    return made


def ends(daemon: Daemon, pid: int | None = None) -> set[str]:
    """What has been noted at the end of that process, or of any."""
    try:
        with open(daemon.path("effects.ends"), encoding="utf-8") as file:
            found = [line.split() for line in file]
    except FileNotFoundError:
        return set()
    return {text for text, by in found if pid in (None, int(by))}


def run(daemon: Daemon, name: str, **arguments: object) -> int:
    with daemon.client() as client:
        return int(client.submit(name, arguments).result(30))


def test_a_worker_that_has_run_its_tasks_runs_them(start: Callable[..., Daemon]) -> None:
    daemon = start(tasks_per_worker=1)
    pid = run(daemon, "plain")
    eventually(lambda: ends(daemon, pid) == BY_IT, "its exit handlers have run")
    eventually(lambda: not processes.is_alive(pid), "it is gone")


def test_a_worker_that_a_stop_ends_runs_them(start: Callable[..., Daemon]) -> None:
    daemon = start()
    pid = run(daemon, "plain")
    assert ends(daemon) == set()
    assert daemon.stop() == 0
    assert ends(daemon, pid) == BY_IT


def test_a_worker_that_a_deploy_ends_runs_them(start: Callable[..., Daemon]) -> None:
    daemon = start()
    pid = run(daemon, "plain")
    daemon.reload("r2")
    eventually(lambda: ends(daemon, pid) == BY_IT, "its exit handlers have run")


def test_a_worker_whose_master_is_lost_runs_them(start: Callable[..., Daemon]) -> None:
    daemon = start()
    pid = run(daemon, "plain")
    daemon.kill()
    eventually(lambda: ends(daemon, pid) == BY_IT, "its exit handlers have run")
    daemon.start()


def test_each_report_of_a_failed_task_arrives(start: Callable[..., Daemon]) -> None:
    """The reporter's thread is one more than before: its worker goes as soon as the task ends."""
    daemon = start()
    with daemon.client() as client:
        tasks = [client.submit("fails_and_reports", {"n": n}) for n in range(4)]
        assert {task.wait(30).state for task in tasks} == {"failed"}
    assert {f"report-{n}" for n in range(4)} <= ends(daemon)


def test_what_waits_in_a_pool_is_done(start: Callable[..., Daemon]) -> None:
    daemon = start()
    pid = run(daemon, "leaves_work_in_a_pool")
    eventually(lambda: "pool" in ends(daemon, pid), "the pool's work is done")


@pytest.mark.parametrize(
    "what",
    [
        "a handler that hangs",
        "a handler that crashes",
        "a handler that raises",
        "a handler that exits",
        "a handler that execs",
        "a handler that holds the interpreter",
        "a thread without an end",
    ],
)
def test_what_goes_wrong_there_costs_no_task_anything(
    start: Callable[..., Daemon], what: str
) -> None:
    daemon = start(tasks_per_worker=1)
    with daemon.client() as client:
        task = client.submit("leaves", {"what": what})
        pid = task.result(30)
        assert task.status().attempt == 1
        assert client.submit("plain").result(30) != pid, "its place is free"
        assert task.status().state == "succeeded"
    eventually(lambda: not processes.is_alive(pid), "it is gone")
    if what in ("a handler that raises", "a thread without an end"):
        assert "task" in ends(daemon, pid), "the other handlers run"


def test_who_leaves_takes_no_place_of_all_that_there_are(start: Callable[..., Daemon]) -> None:
    daemon = start(tasks_per_worker=1, max_workers=1)
    with daemon.client() as client:
        pid = client.submit("leaves", {"what": "a handler that hangs"}).result(30)
        next_one = client.submit("plain")
        assert next_one.result(30) != pid
    eventually(lambda: f"pid={pid}" in daemon.log(), "the first worker is gone")
    log = daemon.log()
    assert log.index(f"running task={next_one.id}") < log.index(f"pid={pid} "), "beside it"


@pytest.mark.parametrize("fork", ["auto", "never"])
def test_a_temporary_directory_of_the_import_is_there_for_all_workers(
    start: Callable[..., Daemon], fork: str
) -> None:
    more = (
        "import tempfile\nmade = tempfile.TemporaryDirectory(dir=os.environ['TASKD_TEST_GATES'])\n"
        "@task\ndef has_it() -> list: return [os.path.isdir(made.name), os.getpid()]\n"
    )
    daemon = start(more, tasks_per_worker=1, fork=fork)
    with daemon.client() as client:
        for _ in range(2):
            there, pid = client.submit("has_it").result(30)
            assert there
            eventually(lambda pid=pid: not processes.is_alive(pid), "the worker is gone")


def test_what_they_print_is_in_the_daemons_log(start: Callable[..., Daemon]) -> None:
    daemon = start(tasks_per_worker=1)
    with daemon.client() as client:
        task = client.submit("prints_at_its_end")
        task.result(30)
    eventually(lambda: "said at the end" in daemon.log(), "it is in the daemon's log")
    assert daemon.task_log(task.id) == "in the task\n"


def test_processes_that_the_app_started_at_import_outlive_a_worker(
    start: Callable[..., Daemon],
) -> None:
    """They are the zygote's, and multiprocessing's own exit handler ends those that it knows."""
    more = "helper = a_process_of_its_own()\n@task\ndef who() -> int: return helper\n"
    daemon = start(more, tasks_per_worker=1)
    helper, pid = run(daemon, "who"), run(daemon, "plain")
    eventually(lambda: not processes.is_alive(pid), "the worker is gone")
    assert ends(daemon, pid) == BY_IT
    assert processes.is_alive(helper)

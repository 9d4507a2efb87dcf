"""``[app] setup`` and the app's hooks in a real worker, forked or started afresh."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

import pytest
from support.daemon import Daemon
from support.waiting import eventually

from taskd.errors import DeployRefused

APP = """
import os, signal, socket, threading
import taskd
from side import gate, mark
from taskd import Context, task

HERE = os.environ["TASKD_TEST_GATES"]
made = {}

def note(text):
    with open(os.path.join(HERE, "noted"), "a") as file:
        file.write(f"{os.getpid()} {text}\\n")

def set_up():
    made["setup"] = os.getpid()

@taskd.on_worker_start
def opens():
    made["pair"] = socket.socketpair()
    note("worker_start")
    print("opened by a hook")

@taskd.on_worker_stop
def flushes():
    note("worker_stop")

@taskd.on_task_start
def starts(task):
    if "reporter" not in made:
        made["reporter"] = threading.Thread(target=threading.Event().wait, daemon=True)
        made["reporter"].start()
    note(f"start {task.id} {task.name} {task.attempt} {task.revision}")
    print("a hook begins")

@taskd.on_task_end
def ends(task, end):
    note(f"end {task.id} {end.outcome} {type(end.exception).__name__}")
    print("a hook ends")
    if task.name == "ends_badly":
        os.kill(os.getpid(), signal.SIGKILL)
    if task.name == "forks" and os.fork() == 0:
        raise RuntimeError("in the child")

@task
def works() -> list:
    made["pair"][0].send(b"x")
    return [os.getpid(), made["setup"], os.getppid(), made["pair"][1].recv(1).decode()]

@task
def fails() -> None:
    raise ValueError("as it should")

@task
def ends_badly() -> int:
    return 7

@task
def forks() -> int:
    return 8

@task(on_deploy="checkpoint")
def moves(ctx: Context) -> int:
    for i in ctx.each("items", range(3)):
        mark(i)
        gate(f"item-{i}")
    return 3
"""


@pytest.fixture(params=["auto", "never"])
def daemon(new_daemon: Callable[..., Daemon], request: pytest.FixtureRequest) -> Daemon:
    made = new_daemon(
        app={"fork": request.param, "setup": "app:set_up"}, queues={"default": {"concurrency": 1}}
    )
    return made.with_releases(APP, "r1", "r2").start()


def noted(daemon: Daemon) -> list[list[str]]:
    with open(daemon.path("gates", "noted"), encoding="utf-8") as file:
        return [line.split() for line in file]


def of(daemon: Daemon, pid: int) -> list[str]:
    return [" ".join(words) for who, *words in noted(daemon) if who == str(pid)]


def test_setup_and_hooks_run_in_their_places(daemon: Daemon) -> None:
    with daemon.client() as client:
        first, second = client.submit("works"), client.submit("works")
        pid, by_setup, zygote, sent = first.result(30)
        assert sent == "x"
        is_forked = daemon.sections["app"]["fork"] == "auto"
        assert by_setup == (zygote if is_forked else pid), "of the process that has imported"
        assert second.result(30)[0] == pid, "what the hook has opened costs no worker"
        assert client.submit("command", {"argv": ["true"]}).result(30) == 0
        failing = client.submit("fails")
        assert failing.wait(30).state == "failed"
        assert daemon.task_log(first.id).splitlines() == ["a hook begins", "a hook ends"]
        assert "opened by a hook" in daemon.log()
        daemon.through([pid])
        assert of(daemon, pid) == [
            "worker_start",
            "start 1 works 1 r1",
            "end 1 succeeded NoneType",
            "start 2 works 1 r1",
            "end 2 succeeded NoneType",
            "start 3 command 1 r1",
            "end 3 succeeded NoneType",
            "start 4 fails 1 r1",
            "end 4 failed ValueError",
        ]
        daemon.reload("r2")
        eventually(lambda: of(daemon, pid)[-1] == "worker_stop", "it flushes when it goes")
    daemon.stop()
    starts = {who for who, *words in noted(daemon) if words == ["worker_start"]}
    stops = {who for who, *words in noted(daemon) if words == ["worker_stop"]}
    assert starts == stops, "each orderly end"


def test_a_task_that_leaves_tells_so_and_begins_again(daemon: Daemon) -> None:
    with daemon.client() as client:
        task = client.submit("moves")
        daemon.reached(task.id, "0")
        daemon.reload("r2")
        for i in range(3):
            daemon.open_gate(f"item-{i}")
        assert task.result(30) == 3
        daemon.through([daemon.effects()[-1].pid])
    told = [" ".join(words) for _, *words in noted(daemon) if words[0] in ("start", "end")]
    assert told == [
        "start 1 moves 1 r1",
        "end 1 left NoneType",
        "start 1 moves 2 r2",
        "end 1 succeeded NoneType",
    ]


def test_a_worker_that_dies_in_a_hook_changes_no_outcome(daemon: Daemon) -> None:
    with daemon.client() as client:
        task = client.submit("ends_badly")
        assert task.result(30) == 7
        assert task.status().attempt == 1
        forking = client.submit("forks")
        assert forking.result(30) == 8
        assert client.submit("works").result(30)[3] == "x"
    ends = [words for _, *words in noted(daemon) if words[0] == "end"]
    assert [words[1] for words in ends] == ["1", "2", "3"], "each ran once"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("raise ValueError('no database')", r"setup = 'app:set_up' failed: ValueError: no data"),
        ("raise SystemExit(3)", r"setup = 'app:set_up' failed: SystemExit: 3"),
        ("return wait()\nasync def wait(): pass", r"failed: TypeError: it is async"),
        ("os._exit(4)", "its process ended while the app was importing"),
        ("signal.pause()", "its app is still importing after"),
    ],
)
def test_a_setup_that_fails_or_hangs_refuses_the_deploy(
    new_daemon: Callable[..., Daemon], body: str, why: str
) -> None:
    daemon = new_daemon(daemon={"prove_timeout": "3s"})
    daemon.with_releases(APP, "r1", "r2").start()
    path = daemon.path("releases", "r2", "app.py")
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"\ndef set_up():\n    {body}\n")
    daemon.sections["app"] = {"setup": "app:set_up"}
    daemon.write_config()
    with pytest.raises(DeployRefused, match=why):
        daemon.reload("r2")
    assert daemon.client().status()["revision"] == "r1"


# ── connections at import ────────────────────────────────────────────────────────────────────

CONNECTS = """
import os, socket
from taskd import task

connection = None

def set_up():
    global connection
    connection = socket.create_connection(("127.0.0.1", int(os.environ["PORT"])))

@task
def works() -> int:
    return 1
"""


@pytest.mark.parametrize("where", ["import", "setup"])
def test_a_connection_after_the_import_warns_or_refuses(
    new_daemon: Callable[..., Daemon], where: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        daemon = new_daemon()
        daemon.extra = {"PORT": address.rpartition(":")[2]}
        daemon.release("r1", APP)
        daemon.release("r2", CONNECTS + ("\nset_up()\n" if where == "import" else ""))
        daemon.point("r1")
        daemon.start()
        keys = {"setup": "app:set_up"} if where == "setup" else {}
        daemon.sections["app"] = {**keys, "connections_at_import": "refuse"}
        daemon.write_config()
        with pytest.raises(DeployRefused) as caught:
            daemon.reload("r2")
        why = str(caught.value)
        assert why.startswith("r2 cannot be used: it holds connections after its import and [app] ")
        assert f"({address}), which its workers would share" in why
        assert (
            'open what is needed in @taskd.on_worker_start or in the tasks, or set fork = "n' in why
        )
        daemon.sections["app"] = {**keys, "connections_at_import": "refuse", "fork": "never"}
        daemon.write_config()
        assert daemon.reload("r2")["plan"]["warnings"] == []
        daemon.sections["app"] = keys
        daemon.write_config()
        (warning,) = daemon.reload("r2")["plan"]["warnings"]
        assert f"opens connections at import ({address})" in warning
        assert daemon.client().submit("works").result(30) == 1


DJANGO = """
import os
import django
from django.conf import settings
from taskd import task

settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3",
                                          "NAME": os.environ["TASKD_TEST_GATES"] + "/db",
                                          "CONN_MAX_AGE": 0}})
django.setup()
from django.db import connection

@task
def counts() -> list:
    was = connection.connection is None
    with connection.cursor() as cursor:
        cursor.execute("select 1")
        return [os.getpid(), was, cursor.fetchone()[0]]
"""


def test_djangos_connections_are_closed_around_each_task(
    new_daemon: Callable[..., Daemon],
) -> None:
    pytest.importorskip("django")
    daemon = new_daemon(queues={"default": {"concurrency": 1}})
    daemon.with_releases(DJANGO, "r1").start()
    with daemon.client() as client:
        pids = set()
        for _ in range(3):
            pid, was_closed, one = client.submit("counts").result(30)
            pids.add(pid)
            assert (was_closed, one) == (True, 1)
            daemon.through([pid])
    assert len(pids) == 1, "no connection is left open, so that the worker is used again"
    assert os.path.exists(daemon.path("gates", "db"))

"""taskd backup and restore: what runs goes on from what it had saved, and nothing by itself."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
from support.daemon import Daemon
from support.waiting import eventually

import taskd
from taskd import errors

APP = """
import os
from taskd import Context, task
from side import gate, mark

@task
def letters(ctx: Context) -> int:
    for item in ctx.each("letters", list(range(6))):
        if item == 3:
            gate("go")
        mark(f"letter{item}")
        ctx.state["sent"] = ctx.state.get("sent", 0) + 1
    return ctx.state["sent"]

@task
def quick() -> None:
    mark("quick")
"""


def run(daemon: Daemon, *words: str) -> tuple[int, str, str]:
    program = "import sys; from taskd.cli.taskd import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program, *words[:1], "--state", daemon.path("state"), *words[1:]],
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    return new_daemon().with_releases(APP, "r1").start()


def test_what_was_backed_up_under_load_starts_paused_and_goes_on(daemon: Daemon) -> None:
    file = daemon.path("backup.db")
    with daemon.client() as client:
        done = client.submit("quick")
        client.wait([done.id])
        running = client.submit("letters")
        daemon.reached(running.id, "letter2")
        later = client.submit("quick", delay=3600)
        is_over = threading.Event()

        def load() -> None:
            with daemon.client() as another:
                while not is_over.is_set():
                    another.submit("quick", delay=7200)

        loading = threading.Thread(target=load)
        loading.start()
        try:
            status, out, err = run(daemon, "backup", file)
        finally:
            is_over.set()
            loading.join()
        assert (status, err) == (0, ""), err
        assert "1 queued" in out and "1 succeeded" in out
        assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
        assert not [name for name in os.listdir(daemon.root) if name.startswith("backup.db.")]

        daemon.open_gate("go")  # it goes on, and ends: that is lost
        client.wait([running.id])
        lost = client.submit("quick")
        client.wait([lost.id])
        status, _, err = run(daemon, "restore", file)
        assert status == 1 and "another taskd" in err
    assert daemon.stop() == 0
    last = lost.id
    status, out, err = run(daemon, "restore", file)
    assert (status, err) == (0, "")
    assert "resume --all" in out
    before = len(daemon.effects())
    daemon.start()
    with daemon.client() as client:
        info = client.task(running.id)
        assert (info.state, info.attempt) == ("queued", 1)
        assert "what waited or ran then may have run since" in str(info.reason)
        assert "restored: it waited" in str(client.task(later.id).reason)
        assert client.task(done.id).state == "succeeded"
        with pytest.raises(errors.UnknownTask):
            client.task(lost.id)
        (pause,) = client.status()["paused"]
        assert "restored from the backup of" in pause["text"]
        new = client.submit("quick")
        assert new.id > last
        assert new.id >= 1_000_000
        assert len(daemon.effects()) == before, "nothing starts by itself"
        client.resume()
        client.wait([running.id, new.id])
        assert client.handle(running.id).result(30) == 6
    items = [each.item for each in daemon.effects(running.id) if each.attempt == 2]
    assert items == ["letter3", "letter4", "letter5"], "it went on from what its slot had"


def test_nothing_is_restored_while_a_worker_lives(daemon: Daemon) -> None:
    file = daemon.path("backup.db")
    with daemon.client() as client:
        running = client.submit("letters")
        daemon.reached(running.id, "letter2")
    daemon.kill()
    assert run(daemon, "backup", file)[0] == 0, "a daemon that is down can be backed up"
    status, _, err = run(daemon, "restore", file)
    assert status == 1
    assert "a worker of the daemon still runs" in err
    daemon.start()
    daemon.open_gate("go")
    with daemon.client() as client:
        assert client.handle(running.id).result(30) == 6


def test_a_file_that_is_no_backup_changes_nothing(daemon: Daemon) -> None:
    file = daemon.path("backup.db")
    with daemon.client() as client:
        client.wait([client.submit("quick").id])
    assert run(daemon, "backup", file)[0] == 0
    assert daemon.stop() == 0
    with open(file, "rb") as whole:
        content = whole.read()
    for broken in (b"", b"no database", content[: len(content) // 2], content[:9000] + bytes(9000)):
        with open(file, "wb") as to:
            to.write(broken)
        status, _, err = run(daemon, "restore", file)
        assert status == 1, err
        assert sorted(os.listdir(daemon.path("state"))) == sorted(
            name for name in os.listdir(daemon.path("state")) if "restore" not in name
        )
    daemon.start()
    with daemon.client() as client:
        assert [task.state for task in client.tasks()] == ["succeeded"]


def test_what_was_there_is_kept_aside_whole(daemon: Daemon) -> None:
    file = daemon.path("backup.db")
    assert run(daemon, "backup", file)[0] == 0
    with daemon.client() as client:
        task = client.submit("quick")
        client.wait([task.id])
    daemon.kill_everything()  # what it had committed is in its log
    assert run(daemon, "restore", file)[0] == 0
    (aside,) = (n for n in os.listdir(daemon.path("state")) if n.startswith("before-restore-"))
    raw = sqlite3.connect(daemon.path("state", aside, "store.db"))
    assert raw.execute("select id, state from tasks").fetchall() == [(task.id, "succeeded")]
    raw.close()
    daemon.start()
    with daemon.client() as client:
        assert client.tasks() == []
        assert isinstance(client, taskd.Client)
        eventually(lambda: client.status()["paused"], "it is paused")

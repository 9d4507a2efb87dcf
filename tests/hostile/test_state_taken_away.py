"""Files of the state directory removed, moved or replaced under a running daemon: no second one
starts beside it, nothing accepted is lost, and it goes on once they are back."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable

import pytest
from support.apps import WAITS
from support.daemon import Daemon
from support.waiting import eventually

import taskd
from taskd.posix import locks

APP = (
    WAITS
    + """
@task
def quick() -> int:
    return 2
"""
)

EVERY = {"taskd.master.service.periodic.EVERY": 0.1}


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    made = new_daemon()
    made.constants = dict(EVERY)
    return made.with_releases(APP, "r1", "r2").start()


def problems(daemon: Daemon) -> str:
    with daemon.raw() as raw:
        return " ".join(raw.ask("status")["problems"])


def refuses_a_second(daemon: Daemon) -> bool:
    """Another one on this state directory, with sockets of its own."""
    before = daemon.runtime
    daemon.runtime = daemon.path("other-run")
    try:
        second = daemon.spawn()
        status = second.wait(60)
    finally:
        daemon.runtime = before
    said = f"another taskd (pid {daemon.pid}) runs on the state directory"
    return status == 1 and said in daemon.log()


def holder(path: str) -> int | None:
    try:
        fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        return locks.holder(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("deployed", [False, True])
def test_no_second_daemon_starts_where_the_locks_file_was_removed(
    new_daemon: Callable[..., Daemon], deployed: bool
) -> None:
    """Before anybody has looked whether it is there."""
    daemon = new_daemon()
    daemon.with_releases(APP, "r1", "r2")
    daemon.constants = {"taskd.master.service.periodic.EVERY": 600.0}
    daemon.start()
    if deployed:
        daemon.reload("r2")
    os.unlink(daemon.path("state", "lock"))
    assert refuses_a_second(daemon)
    with daemon.client() as client:
        assert client.submit("quick").result(30) == 2
    daemon.kill()
    daemon.start()


def test_a_locks_file_that_was_removed_is_made_anew_and_locked(daemon: Daemon) -> None:
    lock = daemon.path("state", "lock")
    os.unlink(lock)
    eventually(lambda: holder(lock) == daemon.pid)
    daemon.reload("r2")
    assert holder(lock) == daemon.pid


def test_directories_that_were_removed_are_made_anew(daemon: Daemon) -> None:
    shutil.rmtree(daemon.path("state", "slots"))
    shutil.rmtree(daemon.path("state", "scratch"))
    with daemon.client() as client:
        assert client.submit("quick").result(30) == 2


def moved_away(daemon: Daemon) -> Callable[[], None]:
    os.rename(daemon.path("state"), daemon.path("elsewhere"))
    return lambda: os.rename(daemon.path("elsewhere"), daemon.path("state"))


def another_in_its_place(daemon: Daemon) -> Callable[[], None]:
    back = moved_away(daemon)
    shutil.copytree(daemon.path("elsewhere"), daemon.path("state"))

    def put_back() -> None:
        shutil.rmtree(daemon.path("state"))
        back()

    return put_back


def store_removed(daemon: Daemon) -> Callable[[], None]:
    store = daemon.path("state", "store.db")
    os.rename(store, f"{store}.away")
    return lambda: os.rename(f"{store}.away", store)


def store_replaced(daemon: Daemon) -> Callable[[], None]:
    other = daemon.path("other.db")
    made = sqlite3.connect(other)
    made.execute("create table t (c)")
    made.close()
    put_back = store_removed(daemon)
    os.rename(other, daemon.path("state", "store.db"))
    return put_back


def log_removed(daemon: Daemon) -> Callable[[], None]:
    log = daemon.path("state", "store.db-wal")
    os.rename(log, f"{log}.away")
    return lambda: os.rename(f"{log}.away", log)


@pytest.mark.parametrize(
    "attack", [moved_away, another_in_its_place, store_removed, store_replaced, log_removed]
)
def test_nothing_is_accepted_or_deployed_while_what_is_written_would_be_lost(
    daemon: Daemon, attack: Callable[[Daemon], Callable[[], None]]
) -> None:
    with daemon.client() as client:
        running = client.submit("waits")
        daemon.reached(running.id, "began")
        put_back = attack(daemon)
        eventually(lambda: "under the daemon" in problems(daemon), "it has noticed")
        with pytest.raises(taskd.Refused, match="under the daemon"):
            client.submit("quick")
        with pytest.raises(taskd.Refused):
            daemon.reload("r2")
        assert client.status()["revision"] == "r1"
        put_back()
        eventually(lambda: "under the daemon" not in problems(daemon), "it has noticed that, too")
        daemon.open_gate("end")
        assert running.result(30) == 1
        assert client.submit("quick").result(30) == 2
        assert daemon.reload("r2")["revision"] == "r2"
        assert [client.task(n).state for n in (1, 2)] == ["succeeded"] * 2
        assert daemon.items(running.id) == ["began"]


def test_a_log_that_is_gone_for_good_costs_nothing_if_the_daemon_is_stopped(
    daemon: Daemon,
) -> None:
    with daemon.client() as client:
        done = client.submit("quick")
        assert done.result(30) == 2
        os.unlink(daemon.path("state", "store.db-wal"))
        eventually(lambda: "under the daemon" in problems(daemon), "it has noticed")
    daemon.restart()
    with daemon.client() as client:
        assert client.task(done.id).result == 2

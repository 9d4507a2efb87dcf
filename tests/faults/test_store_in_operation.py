"""A store that fails while the daemon runs: locked, slow, damaged. What runs goes on."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from looking import problems, reason
from support.daemon import repeated
from support.mounts import MIB, Mounted
from support.waiting import eventually

import taskd

PAGE = 4096

LOCKER = """
import sqlite3, sys
store = sqlite3.connect(sys.argv[1], isolation_level=None)
store.execute("begin immediate")
print("locked", flush=True)
sys.stdin.read()
store.execute("rollback")
"""


def store_of(daemon: Mounted) -> str:
    return daemon.path("state", "store.db")


@contextmanager
def locked_by_another(path: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has the lock for writing, and is stopped in the middle of it."""
    with subprocess.Popen(
        [sys.executable, "-c", LOCKER, path],
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as locker:
        try:
            assert locker.stdout is not None
            assert locker.stdout.readline() == "locked\n"
            locker.send_signal(signal.SIGSTOP)
            yield locker
        finally:
            locker.kill()


def test_a_store_that_another_process_holds_is_waited_for_then_refused_and_goes_on_after_it(
    mounted: Callable[..., Mounted],
) -> None:
    daemon = mounted()
    daemon.start()
    with daemon.client() as client, daemon.raw() as raw:
        running = client.submit("loop")
        daemon.reached(running.id, "2")
        with locked_by_another(store_of(daemon)):
            daemon.open_gate("go")
            daemon.reached(running.id, "5")  # it does not need the store to go on
            assert raw.ask("status")["states"]["running"] == 1, "the daemon answers meanwhile"
            with pytest.raises(taskd.Refused, match="another process has locked it; see who with"):
                raw.submit("quick", text="x")
            eventually(lambda: "cannot be recorded yet" in reason(daemon, running.id))
            assert "another process has locked it" in problems(daemon)[0]
        assert running.result(30) == 6
        assert client.submit("quick", {"text": "ab"}).result(30) == 2
    assert daemon.items(running.id) == ["0", "1", "2", "3", "4", "5"]


def test_a_disk_that_hangs_holds_up_what_is_written_and_nothing_else(
    mounted: Callable[..., Mounted],
) -> None:
    daemon = mounted()
    daemon.ext4("state", 32 * MIB)
    daemon.start()
    with daemon.client() as client, daemon.raw() as writing, daemon.raw() as looking:
        assert client.submit("quick").result(30) == 0
        with daemon.frozen("state"):
            args = b"\xa0"
            task = {"submission": os.urandom(16), "name": "quick", "args": args}
            asked = writing.start("submit", tasks=[task])
            assert looking.ask("status")["states"]["succeeded"] == 1, "the loop does not wait"
            assert looking.ask("show", task=1)["task"]["state"] == "succeeded"
        number = int(writing.reply_to(asked)["tasks"][0]["id"])
        assert client.handle(number).result(30) == 0


def damage(path: str) -> bytes:
    """Every page but the first is something else now; the file as it was."""
    with sqlite3.connect(path) as store:
        store.execute("pragma wal_checkpoint(truncate)")
    store.close()
    with open(path, "r+b") as file:
        before = file.read()
        file.seek(PAGE)
        file.write(b"\xff" * (len(before) - PAGE))
    return before


def test_damage_met_in_operation_ends_nothing_loses_nothing_and_accepts_nothing_more(
    mounted: Callable[..., Mounted],
) -> None:
    daemon = mounted(queues={"default": {"concurrency": 1}})
    daemon.start()
    with daemon.client() as client, daemon.raw() as raw:
        running = client.submit("loop").id
        daemon.reached(running, "2")
        waiting = [client.submit("quick", {"text": "y" * n}).id for n in range(3)]
        before = damage(store_of(daemon))
        with pytest.raises(taskd.Refused, match="the file is damaged; restore it from a backup"):
            while True:  # until the pages that it has in memory are used up
                raw.submit("quick", text="lost with the damaged file")
        eventually(lambda: any("damaged" in problem for problem in problems(daemon)))
        daemon.open_gate("go")
        daemon.reached(running, "5")
        eventually(lambda: any("it has ended, and that" in p for p in problems(daemon)))
        assert set(daemon.effects()) == set(daemon.effects(running)), "nobody was started"
        pid = client.status()["pid"]
        assert pid == daemon.pid
    daemon.kill()
    for name in ("store.db-wal", "store.db-shm"):
        os.unlink(daemon.path("state", name))
    with open(store_of(daemon), "wb") as file:
        file.write(before)  # the backup
    daemon.start()
    with daemon.client() as client:
        assert client.handle(running).result(30) == 6
        assert [client.handle(task).result(30) for task in waiting] == [0, 1, 2]
    assert repeated(daemon.effects()) == {}


def damage_table(path: str, name: str) -> None:
    """That table alone: "results" is looked at neither by a submission nor by a start,
    "submissions" by a submission alone."""
    with sqlite3.connect(path) as store:
        store.execute("pragma wal_checkpoint(truncate)")
        query = "select rootpage from sqlite_master where name = ?"
        (page,) = store.execute(query, (name,)).fetchone()
    store.close()
    with open(path, "r+b") as file:
        file.seek((page - 1) * PAGE)
        file.write(b"\xff" * PAGE)


def test_damage_that_one_reader_met_refuses_and_stops_what_would_not_have_met_it(
    mounted: Callable[..., Mounted],
) -> None:
    daemon = mounted()
    daemon.start()
    with daemon.client() as client, daemon.raw() as raw:
        done = client.submit("quick")
        assert done.result(30) == 0
        later = client.submit("quick", delay=5)  # none of what follows takes so long
        damage_table(store_of(daemon), "results")
        client.submit("quick", delay=3600)  # since then nothing in memory is taken for current
        with pytest.raises(taskd.Refused, match="the file is damaged"):
            raw.ask("show", task=done.id)
        with pytest.raises(taskd.Refused, match="the file is damaged"):
            raw.submit("quick", text="x")
        with pytest.raises(taskd.Refused, match="the file is damaged"):
            raw.ask("retry", task=done.id)
        eventually(lambda: reason(daemon, later.id).startswith("waits: nothing new is accepted"))
        assert raw.ask("show", task=later.id)["task"]["state"] == "queued"
    assert daemon.items(later.id) == []


def test_damage_that_the_writer_met_refuses_and_stops_what_would_not_have_met_it(
    mounted: Callable[..., Mounted],
) -> None:
    daemon = mounted(queues={"default": {"concurrency": 1}})
    daemon.start()
    with daemon.client() as client, daemon.raw() as raw:
        running = client.submit("loop")
        daemon.reached(running.id, "2")
        waiting = client.submit("quick")
        damage_table(store_of(daemon), "submissions")
        with pytest.raises(taskd.Refused, match="the file is damaged"):
            raw.submit("quick", text="x")
        with pytest.raises(taskd.Refused, match="the file is damaged"):
            raw.ask("retry", task=waiting.id)
        daemon.open_gate("go")
        assert running.result(30) == 6, "its end is recorded where there is no damage"
        eventually(lambda: reason(daemon, waiting.id).startswith("waits: nothing new is accepted"))
        assert any("the file is damaged" in problem for problem in problems(daemon))
    assert daemon.items(waiting.id) == []

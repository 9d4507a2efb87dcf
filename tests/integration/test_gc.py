"""taskctl gc: what is over goes before its time, and the store of 0.2 becomes small."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable

import pytest
from support.daemon import Daemon
from support.users import STRANGER, as_user, gid, groups_here
from support.waiting import eventually

import taskd
from taskd import errors

APP = """
from taskd import Context, task
from side import gate, mark

@task
def works(ctx: Context, size: int = 0) -> str:
    print("log")
    (ctx.scratch / "file").write_text("x")
    return "x" * size

@task(queue="other")
def fails() -> None:
    raise ValueError("no")

@task
def waits() -> None:
    mark("began")
    gate("go")
"""


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    made = new_daemon().with_releases(APP, "r1")
    made.constants["taskd.master.service.retention.EVERY"] = 0.2
    return made.start()


def gc(daemon: Daemon, *words: str) -> tuple[int, str, str]:
    done = daemon.taskctl("gc", *words)
    return done.returncode, done.stdout, done.stderr


def ids(client: taskd.Client) -> set[int]:
    return {task.id for task in client.tasks(limit=1000)}


def test_what_is_named_is_counted_and_shown_and_goes_with_a_yes(daemon: Daemon) -> None:
    with daemon.client() as client:
        works = [client.submit("works").id for _ in range(7)]
        failed = [client.submit("fails").id for _ in range(2)]
        client.wait([*works, *failed])
        running = client.submit("waits").id
        daemon.reached(running, "began")
        later = client.submit("works", delay=1000).id

        status, out, err = gc(daemon, "--state", "succeeded")
        assert (status, err) == (2, "nothing was removed: say --yes\n")
        assert out.splitlines()[0] == "7 tasks that are over:"
        assert out.splitlines()[-1] == "  … and 2 more"
        assert len(ids(client)) == 11

        status, _, err = gc(daemon, "--all", "--at-most", "8", "--yes")
        assert status == 2 and "9 tasks, more than 8" in err
        assert gc(daemon)[0] == 2
        assert gc(daemon, "--older", "1h", "--yes") == (0, "0 tasks that are over\n", "")
        assert gc(daemon, "--queue", "other", "--yes")[:2] == (
            0,
            f"2 tasks that are over:\n  {failed[1]}  fails  failed\n  {failed[0]}  fails  failed\n"
            "removed 2\n",
        )
        assert ids(client) == {*works, running, later}
        status, out, _ = gc(daemon, "--all", "--yes", "--json")
        assert (status, json.loads(out)) == (0, {"found": 7, "removed": 7})
        assert ids(client) == {running, later}
        scratch = daemon.path("state", "scratch")
        eventually(
            lambda: not set(map(str, works)) & set(os.listdir(scratch)),
            "their scratch directories go, too",
        )
        assert client.remove([running, later, 999])["removed"] == []
        daemon.open_gate("go")


def test_others_than_operators_remove_nothing(new_daemon: Callable[..., Daemon]) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    (group,) = groups_here(1)
    daemon = new_daemon(access={"submit_groups": [group]}).with_releases(APP, "r1").start()

    def act() -> str:
        with taskd.Client(daemon.submit_socket) as client:
            for ask in (lambda: client.remove([1]), client.compact):
                try:
                    ask()
                except errors.NotAllowed:
                    continue
                return "allowed"
        return "refused"

    assert as_user(STRANGER, [gid(group)], act) == "refused"


def test_a_store_of_the_version_before_is_made_small_while_the_daemon_serves(
    new_daemon: Callable[..., Daemon],
) -> None:
    daemon = new_daemon().with_releases(APP, "r1").start()
    daemon.constants["taskd.master.service.retention.FIRST"] = 0.1
    daemon.constants["taskd.master.service.retention.EVERY"] = 0.2
    assert daemon.stop() == 0
    store = daemon.path("state", "store.db")
    raw = sqlite3.connect(store)
    raw.executescript("pragma journal_mode = delete; pragma auto_vacuum = none; vacuum")
    raw.execute("pragma journal_mode = wal")
    raw.close()
    daemon.start()
    with daemon.client() as client:
        client.wait([client.submit("works", {"size": 900_000}).id for _ in range(6)])
        running = client.submit("waits")
        daemon.reached(running.id, "began")
        assert gc(daemon, "--all", "--yes")[0] == 0
        status = client.status

        def told() -> list[str]:
            return [c["text"] for c in status()["checks"] if "gc --compact" in c["text"]]

        eventually(told, "doctor says what would come back")
        code, out, err = gc(daemon, "--compact", "--json")
        assert (code, err) == (0, "")
        assert json.loads(out)["now"] < 1_000_000 < json.loads(out)["before"]
        client.submit("works")
        assert os.path.getsize(store) < 1_000_000
        eventually(lambda: not told(), "and that it shrinks by itself now")
        daemon.open_gate("go")
        client.wait([running.id])
        assert daemon.restart().is_answering()

"""Tasks that are over are removed in time, with all that is theirs, whatever happens meanwhile."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable
from typing import Any

import pytest
from support.daemon import Daemon
from support.raw import Raw
from support.waiting import eventually

import taskd
from taskd import errors
from taskd.protocol import data, submission

APP = """
import contextlib
import os
from taskd import Context, task
from side import gate, mark

@task
def leaves(ctx: Context, what: str = "") -> str:
    mark("ran")
    if "log" in what:
        print("something")
    if "files" in what:
        (ctx.scratch / "deep" / "deeper").mkdir(parents=True)
        (ctx.scratch / "deep" / "deeper" / "file").write_text("x")
        (ctx.scratch / "out").symlink_to(os.environ["HOME"])
    if "scratch" in what:
        ctx.scratch
        os.listdir(os.environ["TASKD_SCRATCH"])
    if "raises" in what:
        raise ValueError("no")
    return what

@task(queue="long")
def kept(ctx: Context) -> str:
    return "kept"

@task(on_deploy="checkpoint")
def moves(ctx: Context) -> str:
    mark("found" if (ctx.scratch / "file").exists() else "began")
    (ctx.scratch / "file").write_text("x")
    while True:
        ctx.sleep(0.01)
        ctx.checkpoint()

@task
def waits() -> None:
    mark("began")
    gate("go")
"""

SOON = {"succeeded": "1s", "failed": "forever", "cancelled": "1s"}


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    made = new_daemon(retention=SOON, queues={"long": {"keep_succeeded": "forever"}})
    made.extra["HOME"] = made.path("home")
    os.mkdir(made.path("home"))
    with open(made.path("home", "precious"), "w", encoding="utf-8"):
        pass
    return made.with_releases(APP, "r1", "r2")  # type: ignore[no-any-return]


def files(daemon: Daemon) -> list[str]:
    """What stands in the directories of logs and of scratch directories."""
    return sorted(os.listdir(daemon.path("logs")) + os.listdir(daemon.path("state", "scratch")))


def ids(client: taskd.Client) -> set[int]:
    return {task.id for task in client.tasks(limit=1000)}


def rows(daemon: Daemon) -> dict[str, int]:
    """How many rows each table has."""
    raw = sqlite3.connect(daemon.path("state", "store.db"))
    try:
        tables = ("tasks", "arguments", "saved", "results", "events", "purged")
        return {
            table: raw.execute(f"select count(*) from {table}").fetchone()[0] for table in tables
        }
    finally:
        raw.close()


def run(client: taskd.Client, what: str = "log files", count: int = 1) -> list[int]:
    tasks = [client.submit("leaves", {"what": what}) for _ in range(count)]
    for task in tasks:
        with contextlib.suppress(
            errors.UnknownTask
        ):  # on a busy machine it has been removed by then
            client.wait([task.id])
    return [task.id for task in tasks]


def test_what_is_over_goes_with_its_files_and_all_else_stays(daemon: Daemon) -> None:
    daemon.start()
    with daemon.client() as client:
        gone = run(client, count=3)
        (failed,) = run(client, "log files raises")
        kept = client.submit("kept").id
        client.wait([kept])
        running = client.submit("waits")
        daemon.reached(running.id, "began")
        later = client.submit("leaves", delay=1000).id
        cancelled = client.submit("leaves", delay=1000)
        cancelled.cancel()
        left = {failed, kept, running.id, later}
        eventually(lambda: ids(client) == left, "what is over for long enough is gone")
        eventually(lambda: rows(daemon)["purged"] == 3 + 1, "their ids are known for longer")
        wanted = sorted([str(failed), f"{failed}.log"])
        eventually(lambda: set(files(daemon)) >= set(wanted) and not set(map(str, gone)) & set(
            files(daemon)), "their files are gone")  # fmt: skip
        assert not {f"{task}.log" for task in gone} & set(files(daemon))
        assert os.path.exists(daemon.path("home", "precious"))
        with pytest.raises(errors.UnknownTask, match=r"has been removed \(\[retention\]\)"):
            client.task(gone[0])
        with pytest.raises(errors.UnknownTask, match=r"no task 10000$"):
            client.task(10000)
        for op in (client.cancel, client.retry, client.log):
            with pytest.raises(errors.UnknownTask):
                op(gone[0])
        states = {state: n for state, n in client.status()["states"].items() if n}
        assert states == dict.fromkeys(("failed", "succeeded", "running", "scheduled"), 1)
        daemon.open_gate("go")


def test_nothing_empty_is_left_of_a_task_that_has_written_nothing(
    new_daemon: Callable[..., Daemon],
) -> None:
    daemon = new_daemon().with_releases(APP, "r1").start()
    with daemon.client() as client:
        run(client, "scratch")
        client.wait([client.submit("command", {"argv": ["true"]}).id])
        assert files(daemon) == []
        (task,) = run(client, "log files")
        assert files(daemon) == [str(task), f"{task}.log"]
        assert client.log(1)["data"] == b""


def test_a_task_goes_on_in_the_scratch_directory_that_was_not_empty(
    new_daemon: Callable[..., Daemon],
) -> None:
    daemon = new_daemon().with_releases(APP, "r1", "r2").start()
    with daemon.client() as client:
        task = client.submit("moves")
        daemon.reached(task.id, "began")
        daemon.reload("r2")
        daemon.reached(task.id, "found", attempt=2)
        task.cancel()
        client.wait([task.id])


def test_a_submission_of_a_removed_task_is_answered_and_not_run_again(daemon: Daemon) -> None:
    daemon.start()
    made = submission.timed(time.time(), os.urandom(8))
    task = {"submission": made, "name": "leaves", "args": data.encode({})}
    for kind in ({}, {"submission_kind": "timed"}):
        with daemon.raw() as raw, daemon.client() as client:
            answer = raw.ask("submit", tasks=[task | kind])["tasks"]
            number = answer[0]["id"]
            eventually(lambda: not ids(client), "it is removed")
            again = raw.ask("submit", tasks=[task | kind])["tasks"]
            assert again == [{"id": number, "created": False}]
            assert len(daemon.effects()) == 1


def test_a_submission_that_is_too_old_is_not_run(daemon: Daemon) -> None:
    daemon.start()
    made = submission.timed(time.time() - 8 * 86400, os.urandom(8))
    task = {"submission": made, "name": "leaves", "args": data.encode({})}
    with daemon.raw() as raw:
        with pytest.raises(errors.TooOld, match="8 days ago"):
            ask(raw, tasks=[task | {"submission_kind": "timed"}])
        assert ask(raw, tasks=[task])["tasks"][0]["created"], "it does not say that it is a time"


def ask(raw: Raw, **fields: Any) -> dict[str, Any]:
    try:
        return raw.ask("submit", **fields)
    except AssertionError as error:
        raise errors.refusal("too-old", str(error)) from None


def test_a_stream_that_goes_on_is_not_refused_for_a_task_that_is_removed(daemon: Daemon) -> None:
    daemon.start()
    with daemon.client() as client:
        running = client.submit("waits")
        (gone,) = run(client)
        told = [event for event in client.follow([gone]) if "event" in event]
        eventually(lambda: ids(client) == {running.id}, "it is removed")
        with pytest.raises(errors.UnknownTask):
            list(client.follow([gone, running.id]))
        assert list(client.follow([gone], after=told[-1])) == []
        with pytest.raises(errors.UnknownTask, match="no task 999"):
            list(client.follow([gone, 999], after=told[-1]))
        events = client.follow([gone, running.id], after=told[-1])
        daemon.open_gate("go")
        assert {event["task"] for event in events} == {running.id}


KILL = "lambda *_: __import__('os').kill(__import__('os').getpid(), 9)"

STEPS = {
    "before its row is removed": "taskd.store.purging.purge",
    "before its files are removed": "taskd.posix.removing.steps",
    "before the rest is forgotten": "taskd.store.purging.forget",
    "before the store is prepared": "taskd.store.purging.prepare",
}


@pytest.mark.parametrize("step", STEPS)
def test_a_master_that_is_killed_at_a_step_loses_track_of_nothing(
    daemon: Daemon, step: str
) -> None:
    daemon.constants[STEPS[step]] = KILL  # type: ignore[assignment]
    daemon.constants["taskd.master.service.retention.FIRST"] = 2
    daemon.start()
    with daemon.client() as client:
        try:
            tasks = [client.submit("leaves", {"what": "log files"}).id for _ in range(5)]
        except errors.Error:
            tasks = []
    assert daemon.process is not None
    assert daemon.process.wait(30) == -9
    before = rows(daemon)
    if "row" in step:
        assert before["tasks"] >= len(tasks) and before["purged"] == 0
    elif "prepared" not in step:
        assert before["purged"] > 0
    daemon.constants.clear()
    daemon.start()
    with daemon.client() as client:
        eventually(lambda: not ids(client), "all are removed")
        eventually(lambda: files(daemon) == [], "with their files")
        eventually(lambda: rows(daemon)["events"] == 0, "and with their events")


def test_a_deploy_in_the_midst_of_it_is_not_held_up_and_all_goes_in_the_end(
    new_daemon: Callable[..., Daemon],
) -> None:
    daemon = new_daemon(retention=SOON, queues={"default": {"concurrency": 3}})
    daemon.constants |= {"taskd.master.service.retention.SLICE": 5}
    daemon.extra["HOME"] = daemon.root
    daemon.with_releases(APP, "r1", "r2").start()
    with daemon.client() as client:
        moving = client.submit("moves")
        run(client, count=60)
        for name in ("r2", "r1"):
            eventually(lambda: rows(daemon)["purged"] > 0, "it has begun")
            daemon.reload(name)
            run(client, count=20)
        daemon.kill()
        daemon.start()
        eventually(lambda: ids(client) <= {moving.id}, "all but the running task are removed")
        own = {str(moving.id), f"{moving.id}.log"}
        eventually(lambda: set(files(daemon)) <= own, "and their logs")
        moving.cancel()
        client.wait([moving.id])


def test_the_plan_and_doctor_say_what_is_removed_and_when(
    new_daemon: Callable[..., Daemon],
) -> None:
    daemon = (
        new_daemon(queues={"long": {"keep_failed": "forever"}}).with_releases(APP, "r1").start()
    )

    def doctor() -> str:
        checks = client.status()["checks"]
        return str(next(check["text"] for check in checks if check["name"] == "retention"))

    with daemon.client() as client:
        assert doctor() == (
            "tasks that are over are kept for 7d (succeeded), 30d (failed), 30d (cancelled), and "
            "for other times in long"
        )
        assert client.reload(plan=True)["plan"]["warnings"] == []
        daemon.sections = {
            "retention": {"succeeded": "12h", "cancelled": "forever"},
            "queues": {"long": {"keep_failed": "90d", "keep_succeeded": "1h"}},
        }
        daemon.write_config()
        warnings = client.reload(plan=True)["plan"]["warnings"]
        assert warnings == [
            "tasks of queue 'default' that succeeded are removed after 12h from now on (until now: "
            "7d)",
            "tasks of queue 'long' that succeeded are removed after 1h from now on (until now: 7d)",
            "tasks of queue 'long' that failed are removed after 90d from now on (until now: "
            "forever)",
        ]


def test_a_store_that_kept_everything_is_left_alone_for_seven_days(
    new_daemon: Callable[..., Daemon],
) -> None:
    daemon = new_daemon(retention=SOON | {"failed": "1s"}).with_releases(APP, "r1").start()
    daemon.extra["HOME"] = daemon.root
    assert daemon.stop() == 0
    raw = sqlite3.connect(daemon.path("state", "store.db"))
    raw.executescript(
        "drop index tasks_ended; drop index submissions_task; drop table purged;"
        "drop table retention"
    )
    raw.close()
    daemon.start()

    def mark() -> float:
        raw = sqlite3.connect(daemon.path("state", "store.db"))
        try:
            found = raw.execute("select since from retention").fetchone()
            return float(found[0]) if found else 0.0
        finally:
            raw.close()

    with daemon.client() as client:
        run(client, count=2)
        since = eventually(mark, "the store is prepared")
        assert abs(since - time.time()) < 600
        status = client.status
        text = eventually(
            lambda: [c["text"] for c in status()["checks"] if "Nothing is removed" in c["text"]]
        )
        assert time.strftime("%Y", time.localtime(since + 7 * 86400)) in text[0]
        daemon.restart()
        assert mark() == since
        assert len(ids(client)) == 2
        assert daemon.stop() == 0
        raw = sqlite3.connect(daemon.path("state", "store.db"))
        with raw:
            raw.execute("update retention set since = since - 8 * 86400")
        raw.close()
        daemon.start()
        eventually(lambda: not ids(client), "the grace is over")


def test_the_store_becomes_small_again(new_daemon: Callable[..., Daemon]) -> None:
    daemon = new_daemon(retention=SOON)
    daemon.extra["HOME"] = daemon.root
    daemon.with_releases(APP, "r1", "r2").start()

    def pages() -> int:
        raw = sqlite3.connect(daemon.path("state", "store.db"))
        try:
            return int(raw.execute("pragma page_count").fetchone()[0])
        finally:
            raw.close()

    with daemon.client() as client:
        run(client, "x" * 900_000, count=8)
        assert pages() > 2000
        eventually(lambda: pages() < 300, "it has given back what it does not use")
        daemon.reload("r2")
        run(client, "log")
        status = client.status
        found = lambda: [c["text"] for c in status()["checks"] if c["name"] == "store"]  # noqa: E731
        assert "free" in eventually(found)[0]

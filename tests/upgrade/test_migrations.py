"""A deploy over a change of what tasks save: tried in the plan, done at the move, undone again."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.daemon import Daemon
from support.waiting import eventually

from taskd.errors import DeployRefused

OLD = """
from taskd import task
from side import mark, until_asked

def numbers(cursor, count):
    for number in range(cursor or 0, count):
        yield number + 1, number

@task(on_deploy="checkpoint")
def job(ctx, count: int):
    ctx.step("begin", lambda: None)
    for n in ctx.each("lines", numbers, count):
        mark(n)
        ctx.state["done"] = ctx.state.get("done", 0) + 1
        if n == 1:
            until_asked(ctx)
    return ["old", ctx.state["done"]]

@task
def which():
    return "REVISION"
"""

NEW = """
from taskd import task
from side import gate, mark

def numbers(cursor, count):
    for number in range(cursor or 0, count):
        yield number + 1, number

@task(on_deploy="checkpoint", version=2)
def job(ctx, total: int, tag: str):
    gate("new")
    for n in ctx.each("rows", numbers, total):
        mark(n)
        ctx.state["seen"] = ctx.state.get("seen", 0) + 1
    return [tag, ctx.state["seen"]]

@job.migrate(1)
def to_2(saved):
    saved.args = {"total": saved.args.pop("count"), "tag": "new"}
    saved.cursors["rows"] = saved.cursors.pop("lines", None)
    if "done" in saved.state:
        saved.state["seen"] = saved.state.pop("done")
    return saved

@task
def which():
    return "REVISION"
"""

BAD = {
    "raises": (
        "saved.args = {",
        "saved.nothing = {",
        r"\(to_2, .*app.py:\d+\) raised AttributeError",
    ),
    "exits": ("return saved", "raise SystemExit(3)", r"called sys.exit\(3\)"),
    "left": ("return saved", "saved.state['f'] = print", "which cannot be saved"),
    "lacks": ("@job.migrate(1)", "", r"no migration from version 1 to 2 \(@job.migrate\(1\)\)"),
    "binds": ('"tag": "new"', '"tog": "new"', "no longer bind: missing argument 'tag'"),
}


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    made = new_daemon(queues={"default": {"concurrency": 1}})
    made.release("r1", OLD.replace("REVISION", "r1"))
    made.release("r2", NEW.replace("REVISION", "r2"))
    made.point("r1")
    return made.start()


def test_running_and_waiting_tasks_go_on_migrated(daemon: Daemon) -> None:
    client = daemon.client()
    running, waiting = client.submit("job", {"count": 5}), client.submit("job", {"count": 3})
    daemon.reached(running.id, "1")
    daemon.open_gate("new")
    assert daemon.reload("r2")["revision"] == "r2"
    assert running.result(30) == ["new", 5]
    assert waiting.result(30) == ["new", 3]
    assert daemon.items(running.id) == ["0", "1", "2", "3", "4"]
    assert [e.revision for e in daemon.effects(running.id)] == ["r1", "r1", "r2", "r2", "r2"]


@pytest.mark.parametrize("wrong", BAD)
def test_a_release_whose_migration_does_not_work_is_refused_with_a_sentence(
    daemon: Daemon, wrong: str
) -> None:
    client = daemon.client()
    running = client.submit("job", {"count": 5})
    daemon.reached(running.id, "1")
    right, left, told = BAD[wrong]
    daemon.release("r3", NEW.replace(right, left))
    with pytest.raises(DeployRefused, match=told) as refused:
        daemon.reload("r3")
    assert "\n" not in str(refused.value)
    assert client.status()["revision"] == "r1"
    assert running.status().state == "running"
    daemon.open_gate("new")
    assert daemon.reload("r2")["revision"] == "r2"
    assert running.result(30) == ["new", 5]


LOOPS = """
from taskd import task
from side import gate, mark

@task(on_deploy="checkpoint", version=VERSION)
def job(ctx, count: int):
    for n in ctx.each("lines", range(count)):
        mark(n)
        if n == 1:
            gate("go")
    return "REVISION"
"""

CANNOT = """
@job.migrate(1)
def to_2(saved):
    raise ValueError("cannot")
"""


def test_a_task_whose_migration_raises_stays_where_it_is_if_the_deploy_is_wanted_all_the_same(
    new_daemon: Callable[..., Daemon],
) -> None:
    daemon = new_daemon()
    daemon.release("r1", LOOPS.replace("REVISION", "r1").replace("VERSION", "1"))
    daemon.release("r2", LOOPS.replace("REVISION", "r2").replace("VERSION", "2") + CANNOT)
    daemon.point("r1")
    client = daemon.start().client()
    running = client.submit("job", {"count": 100})
    daemon.reached(running.id, "1")
    with pytest.raises(DeployRefused, match="raised ValueError: cannot"):
        daemon.reload("r2")
    assert client.reload(allow_held=True)["revision"] == "r2"
    daemon.open_gate("go")
    assert running.result(30) == "r1"
    assert {(e.revision, e.attempt) for e in daemon.effects(running.id)} == {("r1", 1)}
    assert len(daemon.items(running.id)) == 100
    eventually(lambda: [r["revision"] for r in client.revisions()] == ["r2"], "r1 has drained")


def test_going_back_before_the_new_code_has_saved_is_exact(daemon: Daemon) -> None:
    """On r2 it is ended before its first save, and goes on with r1 as if never moved."""
    client = daemon.client()
    running = client.submit("job", {"count": 5})
    daemon.reached(running.id, "1")
    daemon.reload("r2")
    eventually(lambda: running.status().revision == "r2", "it runs on r2")
    daemon.reload("r1")
    assert running.status().revision == "r2"
    client.drain("r2", "now")
    assert running.result(30) == ["old", 5]
    assert daemon.items(running.id) == ["0", "1", "2", "3", "4"]

"""``[daemon] drain_limit``: a revision that drains for too long is left by its tasks."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from support.daemon import Daemon, repeated
from support.waiting import eventually

APP = """
from taskd import task
from side import gate, mark, until_asked

@task
def listens(ctx, n: int) -> str:
    for i in ctx.each("items", range(n)):
        mark(i)
        if i == 0:
            until_asked(ctx)
    return "REVISION"

@task
def deaf(ctx, n: int) -> str:
    for i in ctx.each("items", range(n)):
        mark(i)
        if i == 1 and "REVISION" == "r1":
            gate("never")
    return "REVISION"
"""

ONLY_OLD = """
@task
def only_here(ctx, n: int) -> str:
    for i in ctx.each("items", range(n)):
        mark(i)
        gate("go")
    return "REVISION"
"""

LIMIT = {"drain_limit": "200ms", "cancel_grace": "200ms"}
AND_NO_FORCE = {**LIMIT, "cancel_grace": "1h"}
WHY = "interrupted: r1 has drained for longer than drain_limit (0.2 s)"


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    """Not started yet, and without a limit."""
    made = new_daemon()
    made.release("r1", (APP + ONLY_OLD).replace("REVISION", "r1"))
    for name in ("r2", "r3"):
        made.release(name, APP.replace("REVISION", name))
    made.point("r1")
    return made


def limit(daemon: Daemon, **settings: Any) -> None:
    daemon.sections["daemon"] = settings
    daemon.write_config()


def begun(daemon: Daemon, name: str, item: str) -> Any:
    task = daemon.client().submit(name, {"n": 4})
    daemon.reached(task.id, item)
    return task


def reasons(task: Any) -> list[str]:
    return [event["reason"] for event in task.follow() if event["reason"]]


def test_a_task_that_leaves_at_its_safe_point_goes_on_with_the_new_revision(
    daemon: Daemon,
) -> None:
    limit(daemon, **AND_NO_FORCE)
    daemon.start()
    task = begun(daemon, "listens", "0")
    daemon.reload("r2")
    assert task.result(30) == "r2"
    assert daemon.items(task.id) == ["0", "1", "2", "3"]
    assert reasons(task) == [WHY]


def test_a_task_that_does_not_leave_is_ended_by_force_and_goes_on_from_what_is_saved(
    daemon: Daemon,
) -> None:
    limit(daemon, **LIMIT)
    daemon.start()
    task = begun(daemon, "deaf", "1")
    daemon.reload("r2")
    assert task.result(30) == "r2"
    assert repeated(daemon.effects()) == {(task.id, "1"): 2}, "the item in hand alone"
    assert reasons(task) == [f"{WHY}, and did not leave in 0.2 s"]
    states = [event["state"] for event in task.follow()]
    assert set(states) <= {"queued", "running", "succeeded"}
    eventually(lambda: [r["revision"] for r in daemon.client().revisions()] == ["r2"])


def test_without_a_limit_a_task_stays_for_as_long_as_it_takes(daemon: Daemon) -> None:
    limit(daemon, drain_limit="none")
    daemon.start()
    task = begun(daemon, "deaf", "1")
    daemon.reload("r2")
    daemon.reload("r3")
    assert (task.status().revision, task.status().attempt) == ("r1", 1)
    daemon.open_gate("never")
    assert task.result(30) == "r1"


def test_a_limit_that_came_with_a_later_deploy_counts_from_when_the_draining_began(
    daemon: Daemon,
) -> None:
    """The limit is what has passed since then: at the later deploy it is over at once."""
    limit(daemon, drain_limit="none", cancel_grace="1h")
    daemon.start()
    task = begun(daemon, "listens", "0")
    daemon.reload("r2")
    began = time.time()
    daemon.reload("r2")
    limit(daemon, drain_limit=time.time() - began, cancel_grace="1h")
    daemon.reload("r3")
    assert task.result(30) == "r3"
    assert len(reasons(task)) == 1
    assert reasons(task)[0].startswith("interrupted: r1 has drained for longer than drain_limit")


def test_a_task_that_no_newer_revision_can_take_is_let_be(daemon: Daemon) -> None:
    limit(daemon, **LIMIT)
    daemon.start()
    task, moves = begun(daemon, "only_here", "0"), begun(daemon, "deaf", "1")
    daemon.point("r2")
    daemon.client().reload(allow_held=True)
    assert moves.result(30) == "r2", "who can go on elsewhere was ended"
    assert 'past drain_limit, and stays task=1 why="r2 has no task' in daemon.log()
    daemon.open_gate("go")
    assert task.result(30) == "r1"
    assert reasons(task) == []


def test_a_cancelled_task_is_cancelled_and_not_moved(daemon: Daemon) -> None:
    limit(daemon, drain_limit=0, cancel_grace="1s")
    daemon.start()
    task = begun(daemon, "deaf", "1")
    task.cancel()
    daemon.reload("r2")
    eventually(lambda: task.status().state == "cancelled")
    assert daemon.items(task.id) == ["0", "1"]

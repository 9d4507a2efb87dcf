"""Retries between the versions: 0.2 goes by the row, this version by the code that failed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pythons import NEW, OLD, Python
from skewed import APP, Skewed

from taskd.errors import Refused

FAILS = """
NEWER = {} if taskd.__version__ == "0.2.0" else {"backoff": lambda number: 0}

@task(queue="one")
def blocks():
    mark("begin")
    gate("go")

@task(queue="one", retries=0, **NEWER)
def fails_always(ctx):
    mark("REVISION")
    raise ValueError(f"{ctx.attempt} on REVISION")

@task(retries=1, **NEWER)
def fails_first(ctx):
    mark("begin")
    if ctx.attempt == 1:
        gate("go")
        raise ValueError("on REVISION")
    return ["REVISION", taskd.__version__]
"""


PUTS_OFF = """
@task(retries=1)
def puts_off(ctx):
    mark("begin")
    if ctx.attempt == 1:
        gate("go")
        ctx.retry(after=0, why="429", counts=False)
    return ["REVISION", taskd.__version__]

@task
def cancels(ctx):
    mark("begin")
    gate("go")
    raise taskd.Cancel("not needed")
"""


@pytest.fixture
def daemon(skewed: Callable[..., Skewed], old: Python, new: Python) -> Skewed:
    """r0 brings the version before, r1 this one, to which a deploy has upgraded."""
    made = skewed(new, queues={"one": {"concurrency": 1}, "default": {"concurrency": 4}})
    made.with_app("r0", old, APP + FAILS + PUTS_OFF)
    made.with_app("r1", new, APP + FAILS + PUTS_OFF)
    made.point("r0")
    made.start()
    assert made.serving() == ("r0", OLD)
    made.reload("r1")
    assert made.serving() == ("r1", NEW)
    return made


def test_a_number_that_was_said_at_submission_holds_after_a_rollback(daemon: Skewed) -> None:
    with daemon.client() as client:
        first = client.submit("blocks")
        task = client.submit("fails_always", retries=1)
        daemon.reached(first.id, "begin")
        client.rollback()
        assert daemon.serving() == ("r0", OLD)
        daemon.open_gate("go")
        found = task.wait(30)
    assert (found.state, found.attempt) == ("failed", 2)
    assert daemon.items(task.id) == ["r0", "r0"]


def test_a_failure_in_a_worker_of_this_version_is_one_to_a_master_of_the_version_before(
    daemon: Skewed,
) -> None:
    with daemon.client() as client:
        task = client.submit("fails_first")
        daemon.reached(task.id, "begin")
        client.rollback()
        assert daemon.serving() == ("r0", OLD)
        daemon.open_gate("go")
        assert task.result(30) == ["r0", OLD]
        reasons = [event["reason"] for event in task.follow() if event["reason"]]
    assert reasons == ["retry 1 of 1 after ValueError: on r1"]


def test_a_task_that_is_put_off_or_cancels_itself_does_so_under_the_version_before(
    daemon: Skewed,
) -> None:
    with daemon.client() as client:
        puts_off, cancels = client.submit("puts_off"), client.submit("cancels")
        for task in (puts_off, cancels):
            daemon.reached(task.id, "begin")
        client.rollback()
        assert daemon.serving() == ("r0", OLD)
        daemon.open_gate("go")
        assert puts_off.result(30) == ["r0", OLD]
        reasons = [event["reason"] for event in puts_off.follow() if event["reason"]]
        found = cancels.wait(30)
    assert reasons == ["sleeping"], "no failure, and no retry used"
    assert (found.state, found.reason) == (
        "cancelled",
        "cancelled by the task itself: not needed",
    )


def test_what_was_said_stays_with_the_task_over_the_version_before(daemon: Skewed) -> None:
    with daemon.client() as client:
        task = client.submit("fails_always", retries=1)
        assert task.wait(30).attempt == 2
        client.rollback()
        task.retry()
        assert task.wait(30).attempt == 4
        daemon.reload("r1")
        task.retry()
        found = task.wait(30)
    assert (found.state, found.attempt) == ("failed", 6)
    assert daemon.items(task.id) == ["r1", "r1", "r0", "r0", "r1", "r1"]


def test_a_failure_in_a_worker_of_the_version_before_is_judged_by_the_row(daemon: Skewed) -> None:
    with daemon.client() as client:
        client.rollback()
        task = client.submit("fails_first")
        daemon.reached(task.id, "begin")
        daemon.reload("r1")
        assert daemon.serving() == ("r1", NEW)
        daemon.open_gate("go")
        assert task.result(30) == ["r1", NEW]
        reasons = [event["reason"] for event in task.follow() if event["reason"]]
    assert reasons == ["retry 1 of 1 after ValueError: on r0"]


def test_a_daemon_of_the_version_before_is_not_asked_for_a_number_of_retries(
    daemon: Skewed,
) -> None:
    """It would take the task, and leave the number out."""
    with daemon.client() as client:
        client.rollback()
    with daemon.client() as client:
        with pytest.raises(Refused, match="submit with retries"):
            client.submit("which", retries=3)
        assert client.tasks(name="which") == []

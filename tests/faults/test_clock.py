"""The clock is set while tasks wait: dates that have come are met, and nobody waits for longer."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from support.clock import SetClock
from support.daemon import Daemon
from support.waiting import eventually

from taskd.client.blocking import TaskHandle

APP = """
from taskd import task
from side import attempt, gate, mark

@task
def quick() -> str:
    mark("quick")
    return "done"

@task(retries=1)
def second_time() -> str:
    mark("tried")
    if attempt() == 1:
        raise ValueError("not yet")
    return "done"

@task
def sleeper(ctx) -> str:
    mark("sleeps")
    ctx.sleep(3, "nap")
    return "awake"

@task
def waits(ctx) -> int:
    gate("go")
    ctx.checkpoint()
    return attempt()
"""

DAY = 24 * 3600


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> SetClock:
    daemon = new_daemon(kind=SetClock, daemon={"drain_limit": "1h"})
    assert isinstance(daemon, SetClock)
    daemon.with_releases(APP, "r1", "r2", "r3").start()
    return daemon


def test_what_has_become_due_by_a_clock_that_was_set_forward_is_started(daemon: SetClock) -> None:
    with daemon.client() as client:
        task = client.submit("quick", delay=DAY - 60)
        far = client.submit("quick", delay=2 * DAY)
        assert task.status().state == "scheduled"
        daemon.set_clock(DAY)
        assert task.result(30) == "done"
        assert far.status().state == "scheduled"
        assert client.submit("quick").result(30) == "done"
        far.cancel()


def test_nobody_waits_longer_because_the_clock_was_set_back(daemon: SetClock) -> None:
    with daemon.client() as client:

        def three_that_wait() -> list[TaskHandle]:
            """None of them has been waited for to its end when the last one begins to wait."""
            tasks = [
                client.submit("quick", delay=2),
                client.submit("second_time"),  # again one second after its failure
                client.submit("sleeper"),
            ]
            for task in tasks[1:]:
                daemon.reached(task.id, "tried" if task is tasks[1] else "sleeps")
                eventually(lambda task=task: task.status().state != "running")  # type: ignore[misc]
            return tasks if all(task.status().state == "scheduled" for task in tasks) else []

        tasks = eventually(three_that_wait)
        daemon.set_clock(-DAY)
        assert [task.result(30) for task in tasks] == ["done", "done", "awake"]
        assert client.submit("sleeper").result(30) == "awake"


def test_a_date_that_was_named_is_met_by_the_clock_as_it_is(daemon: SetClock) -> None:
    with daemon.client() as client:
        named = datetime.now(UTC) + timedelta(days=1)
        task, soon = client.submit("quick", at=named), client.submit("quick", delay=DAY)
        daemon.set_clock(-DAY // 2)
        eventually(lambda: (soon.status().run_at or 0) < named.timestamp() - DAY / 4)
        assert task.status().run_at == named.timestamp()
        daemon.kill()
        daemon.start()
        assert task.status().run_at == named.timestamp()
        daemon.set_clock(DAY + 60)
        assert task.result(30) == "done"
        assert client.submit("quick", at=datetime(2020, 1, 1, tzinfo=UTC)).result(30) == "done"


def test_a_limit_on_how_long_counts_what_has_passed_and_not_what_was_set(daemon: SetClock) -> None:
    with daemon.client() as client:
        task = client.submit("waits")
        eventually(lambda: task.status().state == "running")
        assert daemon.reload("r2")["revision"] == "r2"
        daemon.set_clock(DAY)
        eventually(lambda: "the clock was set by='+86400 s'" in daemon.log())
        daemon.reload("r3")  # the limit is looked at again
        assert task.status().reason is None, "it is not asked to leave"
        daemon.open_gate("go")
        assert task.result(30) == 1
    assert "drain_limit" not in daemon.log()

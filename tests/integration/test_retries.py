"""Retries: the policy is that of the code that ran the failed try, over deploys, kills and starts.

No test waits for a long delay: a delay of 0 is tried again at once, one of an hour never.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
from support import processes
from support.daemon import Daemon
from support.waiting import eventually

APP = """
from taskd import task
from side import attempt, gate, is_open, mark, until_asked

POLICY

@task(queue="one")
def blocks() -> None:
    mark("begin")
    gate("go")

@task(queue="one", **MORE)
def fails(times: int = 99) -> str:
    mark("try")
    if attempt() <= times:
        raise ConnectionError(f"attempt {attempt()}")
    return "in the end"

@task(on_deploy="checkpoint", **MORE)
def fails_once_asked(ctx) -> str:
    for i in ctx.each("items", range(2)):
        mark("begin")
        until_asked(ctx) if attempt() == 1 else None
    raise ConnectionError("REVISION")

@task(retries=3, backoff=0)
def fails_behind_a_gate() -> None:
    mark("begin")
    gate(f"fail-{attempt()}")
    raise ValueError(f"attempt {attempt()}")

@task(retries=3, backoff=[3600])
def waits_an_hour() -> None:
    mark("begin")
    gate("go")
    raise ValueError("later")

@task(retries=2, backoff=lambda number: mark(f"asked-{number}") or 0, retry_on=ValueError,
      give_up_on=UnicodeError)
def picks(kinds: list) -> None:
    raise {"value": ValueError, "unicode": UnicodeError, "key": KeyError}[kinds[attempt() - 1]]("x")
"""

NONE = "MORE = {}"
TWICE = "MORE = {'retries': 2, 'backoff': 0}"


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    """r1 tries nothing again, r2 twice."""
    made = new_daemon(queues={"one": {"concurrency": 1}, "default": {"concurrency": 4}})
    for name, policy in (("r1", NONE), ("r2", TWICE)):
        made.release(name, APP.replace("POLICY", policy).replace('"REVISION"', f'"{name}"'))
    made.point("r1")
    return made


def reasons(daemon: Daemon, task: int) -> list[str]:
    with daemon.client() as client:
        return [e["reason"] for e in client.follow([task]) if e["reason"]]


def test_a_deploy_with_another_policy_helps_what_already_waits(daemon: Daemon) -> None:
    with daemon.start().client() as client:
        first, waits = client.submit("blocks"), client.submit("fails", {"times": 2})
        daemon.reached(first.id, "begin")
        daemon.reload("r2")
        daemon.open_gate("go")
        assert waits.result(30) == "in the end"
    assert reasons(daemon, waits.id) == [
        "retry 1 of 2 after ConnectionError: attempt 1",
        "retry 2 of 2 after ConnectionError: attempt 2",
    ]


@pytest.mark.parametrize(("first", "second", "attempts"), [("r1", "r2", 4), ("r2", "r1", 2)])
def test_the_policy_is_that_of_the_code_that_ran_the_failed_try(
    daemon: Daemon, first: str, second: str, attempts: int
) -> None:
    """It began on the one and failed on the other."""
    daemon.point(first)
    with daemon.start().client() as client:
        task = client.submit("fails_once_asked")
        daemon.reached(task.id, "begin")
        daemon.reload(second)
        found = task.wait(30)
    assert (found.state, found.attempt) == ("failed", attempts)
    assert found.error is not None and found.error["message"] == second


@pytest.mark.parametrize("said", [0, 1, 5])
def test_what_was_said_at_submission_goes_before_the_code_of_every_revision(
    daemon: Daemon, said: int
) -> None:
    with daemon.start().client() as client:
        first = client.submit("blocks")
        waits = client.submit("fails", retries=said)
        daemon.reached(first.id, "begin")
        daemon.point("r2")
        client.reload()
        daemon.open_gate("go")
        # r1 has the same backoff as all that say none: what counts is how often it is tried.
        found = waits.wait(30)
    assert (found.state, found.attempt) == ("failed", said + 1)


def test_errors_are_picked_by_their_classes_in_the_worker(daemon: Daemon) -> None:
    with daemon.start().client() as client:
        given_up = client.submit("picks", {"kinds": ["value", "unicode"]}).wait(30)
        not_named = client.submit("picks", {"kinds": ["value", "key"]}).wait(30)
        used_up = client.submit("picks", {"kinds": ["value"] * 3}).wait(30)
    assert (given_up.state, given_up.attempt) == ("failed", 2)
    assert given_up.reason == "UnicodeError: x; not tried again: give_up_on names UnicodeError"
    assert (not_named.state, not_named.attempt) == ("failed", 2)
    assert not_named.reason == "KeyError: 'x'; not tried again: retry_on does not name KeyError"
    assert (used_up.state, used_up.attempt, used_up.reason) == ("failed", 3, "ValueError: x")
    assert daemon.items(used_up.id) == ["asked-1", "asked-2", "asked-3"]


def test_retries_crashes_and_interruptions_are_counted_apart(daemon: Daemon) -> None:
    """Three deaths in a row would have held it; each failure begins a new row."""
    with daemon.start().client() as client:
        task = client.submit("fails_behind_a_gate")
        for number in range(1, 9):
            pid = daemon.reached(task.id, "begin", attempt=number).pid
            if number in (1, 2, 4, 5):
                os.kill(pid, signal.SIGKILL)
            else:
                daemon.open_gate(f"fail-{number}")
        found = task.wait(30)
    assert (found.state, found.attempt, found.reason) == ("failed", 8, "ValueError: attempt 8")


@pytest.mark.parametrize("also", ["nobody", "worker", "everything"])
def test_a_failure_that_no_master_has_heard_is_judged_by_the_policy_in_the_slot(
    daemon: Daemon, also: str
) -> None:
    """Of the code that ran it, also where no process of it lives any more."""
    with daemon.start().client() as client:
        task = client.submit("waits_an_hour")
    worker = daemon.reached(task.id, "begin").pid
    daemon.kill()
    daemon.open_gate("go")
    eventually(lambda: not processes.is_alive(worker), "its end is in the slot")
    if also == "everything":
        daemon.kill_everything()
    elif also == "worker":
        os.kill(daemon.zygotes()["r1"], signal.SIGKILL)
    with daemon.start().client() as client:
        found = eventually(
            lambda: (f := client.task(task.id)).state == "scheduled" and f, "it waits"
        )
        assert found.reason == "retry 1 of 3 after ValueError: later"
        assert found.run_at is not None and found.attempt == 1
        assert found.run_at - (found.started or 0) >= 3600
        daemon.kill_everything()
    with daemon.start().client() as client:
        again = client.task(task.id)
        assert (again.run_at, again.shown) == (found.run_at, "retrying")
        task = client.handle(task.id)
        task.cancel()


# ── what the task says itself ────────────────────────────────────────────────────────────────


SAYS = """
import taskd
from taskd import task
from side import attempt, gate, mark

@task(retries=2, backoff=3600)
def says(ctx, what: list) -> str:
    mark("begin")
    for how in what[attempt() - 1:attempt()]:
        gate(how) if how.startswith("gate") else None
        try:
            raise ConnectionError(how)
        except ConnectionError:
            if how == "cancel":
                raise taskd.Cancel("it is not needed")
            elif how == "fail":
                ctx.fail("no such customer")
            elif how == "put off":
                raise ctx.retry(after=0, counts=False)
            raise ctx.retry(after=0 if how != "later" else 3600)
    return "in the end"
"""


@pytest.fixture
def saying(new_daemon: Callable[..., Daemon]) -> Daemon:
    return new_daemon().with_releases(SAYS, "r1", "r2").start()


@pytest.mark.parametrize(
    ("what", "state", "attempts", "reason"),
    [
        (["retry", "retry"], "succeeded", 3, None),
        (["retry", "retry", "retry"], "failed", 3, "ConnectionError: retry"),
        (
            ["retry", "fail"],
            "failed",
            2,
            "Fail: no such customer; not tried again: the task said so (ctx.fail)",
        ),
        (["cancel"], "cancelled", 1, "cancelled by the task itself: it is not needed"),
        (["put off"] * 5 + ["retry"] + ["put off"] * 5 + ["retry"], "succeeded", 13, None),
    ],
)
def test_a_task_says_how_its_try_ends(
    saying: Daemon, what: list[str], state: str, attempts: int, reason: str | None
) -> None:
    with saying.client() as client:
        found = client.submit("says", {"what": what}).wait(30)
    assert (found.state, found.attempt, found.reason) == (state, attempts, reason)


def test_what_a_task_asks_for_stands_in_place_of_the_backoff_and_is_shown(saying: Daemon) -> None:
    with saying.client() as client:
        task = client.submit("says", {"what": ["put off", "put off", "later"]})
        found = eventually(
            lambda: (f := task.status()).reason and "retry" in f.reason and f, "it waits"
        )
        assert found.run_at is not None and found.started is not None
        assert found.run_at >= found.started + 3600
        assert found.reason == "retry 1 of 2 after ConnectionError: later"
        task.cancel()
    puts = reasons(saying, task.id)[:2]
    assert puts == [
        "put off once, by itself: ConnectionError: put off",
        "put off 2 times, by itself: ConnectionError: put off",
    ]


@pytest.mark.parametrize("what", ["gate-retry", "gate-later"])
def test_what_a_task_says_is_heeded_though_no_master_has_heard_it(
    saying: Daemon, what: str
) -> None:
    with saying.client() as client:
        task = client.submit("says", {"what": [what]})
    worker = saying.reached(task.id, "begin").pid
    saying.kill()
    saying.open_gate(what)
    eventually(lambda: not processes.is_alive(worker), "its end is in the slot")
    with saying.start().client() as client:
        assert client.handle(task.id).result(30) == "in the end"
        assert client.task(task.id).attempt == 2

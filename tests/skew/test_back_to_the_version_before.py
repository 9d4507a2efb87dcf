"""Back to the version before: by a deploy that fails, by a rollback, by a start."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pythons import NEW, NEXT, OLD, Python
from skewed import Skewed
from support import processes
from support.daemon import repeated
from support.waiting import eventually

from taskd import AsyncClient
from taskd.errors import DeployRefused, Error
from taskd.protocol.control import OLDEST

STEPS = ("first stage", "read the snapshot", "load", "open the store", "confirm")


@pytest.fixture
def daemon(skewed: Callable[..., Skewed], old: Python, new: Python, following: Python) -> Skewed:
    """r0 brings the version before, r1 this one, r2 the next one."""
    made = skewed(new)
    made.with_app("r0", old)
    made.with_app("r1", new)
    made.with_app("r2", following)
    return made


def test_a_newer_taskd_whose_trial_fails_refuses_the_deploy(daemon: Skewed) -> None:
    daemon.point("r1")
    daemon.start()
    daemon.let_fail("trial: load")
    with pytest.raises(DeployRefused, match="its trial failed at the step 'load'"):
        daemon.reload("r2")
    assert daemon.serving() == ("r1", NEW)
    daemon.reload("r2")
    assert daemon.serving() == ("r2", NEXT)


@pytest.mark.parametrize(
    ("serves", "wanted"),
    [(("r1", NEW), "r2"), (("r2", NEXT), "r1"), (("r1", NEW), "r0"), (("r0", OLD), "r1")],
)
def test_an_image_of_another_version_that_fails_gives_back_what_it_was_given(
    daemon: Skewed, serves: tuple[str, str], wanted: str
) -> None:
    daemon.point(serves[0])
    daemon.start()
    assert daemon.serving() == serves
    pid = daemon.pid
    with daemon.raw(newest=OLDEST) as carried, daemon.client() as client:
        stays, travels = client.submit("stays", {"n": 3}), client.submit("travels", {"n": 2})
        stream = carried.start("follow", tasks=[stays.id], progress=False)
        daemon.open_gate("item-0")
        for task in (stays, travels):
            daemon.reached(task.id, "0")
        for step in STEPS:
            daemon.let_fail(step)
            with pytest.raises(DeployRefused, match=f"did not take over, at the step '{step}'"):
                daemon.reload(wanted)
            assert daemon.serving() == serves
            assert daemon.which() == list(serves)
        assert daemon.pid_is_still(pid)
        daemon.reload(wanted)
        assert daemon.serving()[0] == wanted
        daemon.open_gate("item-1")
        assert travels.result(30) == [serves[0], wanted]
        daemon.open_gate("go")
        assert stays.result(30) == [3, *serves]
        carried.reply_to(stream)
        assert [item["state"] for item in carried.items(stream)][-1] == "succeeded"
    assert not repeated(daemon.effects())


# ── by a rollback ────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def upgraded(daemon: Skewed) -> Skewed:
    """A daemon of the version before that a deploy has upgraded; r1 serves."""
    daemon.point("r0")
    daemon.start()
    assert daemon.serving() == ("r0", OLD)
    daemon.reload("r1")
    assert daemon.serving() == ("r1", NEW)
    return daemon


def test_a_rollback_brings_the_version_before_with_all_that_goes_on(upgraded: Skewed) -> None:
    pid = upgraded.pid
    with upgraded.raw(newest=OLDEST) as carried, upgraded.client() as client:
        stays, moves = client.submit("stays", {"n": 4}), client.submit("moves", {"n": 4})
        waiting = client.submit("which", delay=3600.0, key="later", priority=3)
        stream = carried.start("follow", tasks=[stays.id, moves.id])
        for task in (stays, moves):
            upgraded.reached(task.id, "0")
        assert client.rollback()["revision"] == "r0"
        assert upgraded.serving() == ("r0", OLD)
        assert moves.result(30) == [4, "r0", OLD]
        assert client.submit("which", delay=3600.0, key="later", priority=3).id == waiting.id
        upgraded.open_gate("go")
        assert stays.result(30) == [4, "r1", NEW]
        carried.reply_to(stream)
        ends = [item for item in carried.items(stream) if item["state"] == "succeeded"]
        assert len(ends) == 2, "the connection and its stream went over"
        assert client.revisions()[0]["revision"] == "r0"
        waiting.cancel()
    assert not repeated(upgraded.effects())
    assert upgraded.pid_is_still(pid)
    eventually(lambda: set(upgraded.zygotes()) == {"r0"}, "the zygote of this version has gone")


def test_who_follows_over_a_rollback_and_back_and_a_kill_hears_each_event_once(
    upgraded: Skewed,
) -> None:
    """By the store's token, by the number of the version before, and by the token again."""
    seen: list[dict[str, Any]] = []
    with upgraded.client() as client, upgraded.client() as other:
        stays, moves = client.submit("stays", {"n": 2}), client.submit("moves", {"n": 2})
        follow = client.follow([stays.id, moves.id])
        following = threading.Thread(target=lambda: seen.extend(follow))
        following.start()
        for task in (stays, moves):
            upgraded.reached(task.id, "0")
        other.rollback()
        assert other.handle(moves.id).result(30) == [2, "r0", OLD]
        upgraded.reload("r1")
        upgraded.kill(signal.SIGKILL)
        upgraded.start()
        assert upgraded.serving() == ("r1", NEW)
        upgraded.open_gate("go")
        following.join(60)
        assert not following.is_alive()
        assert {event.get("token") is None for event in seen} == {True, False}
        for task in (stays, moves):
            told = [event["event"] for event in seen if event["task"] == task.id]
            assert told == [event["event"] for event in client.follow([task.id])]


def test_what_waits_for_others_waits_under_the_version_before_and_goes_on_after_it(
    upgraded: Skewed,
) -> None:
    """Also where that version has ended, or cancelled, what they wait for."""
    with upgraded.client() as client:
        first, dropped = client.submit("stays", {"n": 1}), client.submit("which", delay=3600.0)
        waiting = client.submit("which", after=first)
        below = client.submit("which", after=waiting)
        anyway = client.submit("which", after=dropped, if_failed="run")
        gone = client.submit("which", after=dropped, if_failed="cancel")
        others = (waiting, below, anyway, gone)
        upgraded.reached(first.id, "0")
        client.rollback()
        assert upgraded.serving() == ("r0", OLD)
        upgraded.open_gate("go")
        first.result(30)
        dropped.cancel()
        client.submit("which").result(30)  # what was ready before it would have run
        assert {each.status().state for each in others} == {"scheduled"}
        upgraded.kill(signal.SIGKILL)
        upgraded.start()
        assert {each.status().state for each in others} == {"scheduled"}
        upgraded.reload("r1")
        assert upgraded.serving() == ("r1", NEW)
        for each in (waiting, below, anyway):
            assert each.result(30) == ["r1", NEW]
        assert gone.wait(30).state == "cancelled"
    assert not repeated(upgraded.effects())


def test_what_the_version_before_does_not_know_is_not_asked_of_it_after_a_rollback(
    upgraded: Skewed,
) -> None:
    """It would start a task at once that is to start at a date. Neither by a connection from before
    the rollback, nor by that of the caller."""
    with upgraded.client() as idle, upgraded.client() as caller:
        known = idle.submit("which", delay=3600.0)
        caller.rollback()
        assert upgraded.serving() == ("r0", OLD)
        for client in (idle, caller):
            with pytest.raises(Error, match="submit with due"):
                client.submit("which", at=datetime.now(UTC) + timedelta(hours=1))
            assert client.submit("which").result(30)
        assert {task.id for task in idle.tasks(state="scheduled")} == {known.id}
        known.cancel()


async def deploys(path: str) -> None:
    async with AsyncClient(path) as client:
        await client.rollback()
        with pytest.raises(Error, match="submit with due"):
            await client.submit("which", at=datetime.now(UTC) + timedelta(hours=1))
        assert await (await client.submit("which")).result(30)


def test_neither_is_it_by_the_caller_of_an_async_rollback(upgraded: Skewed) -> None:
    asyncio.run(deploys(upgraded.control))
    assert upgraded.serving() == ("r0", OLD)


def test_workers_of_this_version_do_all_under_a_master_of_the_one_before(
    upgraded: Skewed,
) -> None:
    with upgraded.client() as client:
        dies, stays = client.submit("stays", {"n": 3}), client.submit("stays", {"n": 3})
        cancelled = client.submit("stays", {"n": 3})
        pids = [upgraded.reached(task.id, "0").pid for task in (dies, stays, cancelled)]
        client.rollback()
        assert upgraded.serving() == ("r0", OLD)
        os.kill(pids[0], signal.SIGKILL)
        cancelled.cancel()
        upgraded.reached(dies.id, "0", attempt=2)
        upgraded.open_gate("go")
        assert dies.result(30) == [3, "r0", OLD]
        assert stays.result(30) == [3, "r1", NEW]
        assert stays.status().progress == {"done": 3, "total": 3, "note": "going on"}
        assert cancelled.wait(30).state == "cancelled"
    assert upgraded.items(dies.id) == ["first", "0", "0", "1", "2"]
    assert upgraded.items(stays.id) == ["first", "0", "1", "2"]


# ── by a start ───────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def restarted(skewed: Callable[..., Skewed], replaceable: Python) -> Skewed:
    """A daemon of this version, whose taskd may be replaced; r1 serves."""
    made = skewed(replaceable.install(NEW))
    made.with_app("r1")
    made.point("r1")
    made.start()
    assert made.serving() == ("r1", NEW)
    return made


def test_a_restart_with_the_version_before_goes_on_with_all_that_was_saved(
    restarted: Skewed, replaceable: Python
) -> None:
    with restarted.client() as client:
        moves = client.submit("moves", {"n": 4})
        waiting = client.submit("which", delay=3600.0, key="later")
        done, failed = client.submit("which"), client.submit("fails")
        assert done.result(30) == ["r1", NEW]
        assert failed.wait(30).state == "failed"
        restarted.reached(moves.id, "0")
    for version in (OLD, NEW):
        replaceable.install(version)
        restarted.restart()
        assert restarted.serving() == ("r1", version)
        with restarted.client() as client:
            assert client.handle(moves.id).result(30) == [4, "r1", OLD]
            assert client.task(done.id).result == ["r1", NEW]
            assert "as it should" in str(client.task(failed.id).error)
            assert client.submit("which", delay=3600.0, key="later").id == waiting.id
            assert restarted.which() == ["r1", version]
    assert restarted.items(moves.id) == ["first", "0", "1", "2", "3"]


def test_a_task_that_outlives_a_killed_daemon_is_taken_in_by_the_version_before(
    restarted: Skewed, replaceable: Python
) -> None:
    with restarted.client() as client:
        stays, dies = client.submit("stays", {"n": 3}), client.submit("stays", {"n": 2})
    worker, other = (restarted.reached(task.id, "0").pid for task in (stays, dies))
    restarted.kill(signal.SIGKILL)
    replaceable.install(OLD)
    restarted.start()
    assert restarted.serving() == ("r1", OLD)
    os.kill(other, signal.SIGKILL)
    restarted.reached(dies.id, "0", attempt=2)
    restarted.open_gate("go")
    with restarted.client() as client:
        assert client.handle(stays.id).result(30) == [3, "r1", NEW]
        assert client.handle(dies.id).result(30) == [2, "r1", OLD]
    eventually(lambda: not processes.is_alive(worker), "the worker of this version is done")
    assert restarted.items(stays.id) == ["first", "0", "1", "2"]
    assert restarted.items(dies.id) == ["first", "0", "0", "1"]


# ── keys of taskd.toml that it does not know ─────────────────────────────────────────────────


def test_a_rollback_to_the_version_before_names_the_keys_that_must_go_first(
    skewed: Callable[..., Skewed], old: Python, new: Python
) -> None:
    """r0 runs on the Python of `taskd run`, which has the version before."""
    daemon = skewed(old)
    daemon.with_app("r0")
    daemon.with_app("r1", new)
    daemon.point("r0")
    daemon.start()
    daemon.reload("r1")
    assert daemon.serving() == ("r1", NEW)
    daemon.sections["app"] = {"env": {"A": "1"}}
    daemon.write_config()
    daemon.reload("r1")
    with daemon.client() as client:
        (why,) = client.rollback(plan=True)["plan"]["warnings"]
        assert f"r0 brings taskd {OLD}, which does not know app.env and cannot be" in why
        assert f"take them out of {daemon.path('taskd.toml')} first" in why
        with pytest.raises(DeployRefused, match=r"does not know app\.env"):
            client.rollback()
        assert daemon.serving() == ("r1", NEW)
        daemon.sections["app"] = {}
        daemon.write_config()
        client.rollback()
    assert daemon.serving() == ("r0", OLD)
    daemon.restart()
    assert daemon.which() == ["r0", OLD]
    daemon.sections["app"] = {}
    daemon.reload("r1")
    assert daemon.serving() == ("r1", NEW)

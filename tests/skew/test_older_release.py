"""A release with the taskd of the version before: a daemon of this one runs its zygote and workers.

So it is where the release's own taskd cannot take over: its trial fails here, once.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
from pythons import NEW, NEXT, OLD, Python
from skewed import APP, Skewed
from support.daemon import repeated
from support.waiting import eventually

from taskd import Secret
from taskd.errors import BadArguments, DeployRefused, TaskCancelled, TaskFailed

DRAINED = """
@task
def stays_until_asked(ctx, n):
    return story(ctx, n, lambda: until_asked(ctx) if ctx.attempt == 1 else None)

@task
def typed(n: int):
    return n
"""


@pytest.fixture
def daemon(skewed: Callable[..., Skewed], new: Python, old: Python) -> Skewed:
    """A daemon of this version; r1 (what serves) brings the taskd before, r2 brings this one."""
    made = skewed(new)
    made.with_app("r1", old, APP + DRAINED)
    made.with_app("r2", new, APP + DRAINED)
    made.point("r2")
    made.start()
    made.point("r1")
    made.let_fail("trial: load")
    said = made.taskctl("reload")
    assert said.returncode == 0, said.stderr
    assert f"r1 brings taskd {OLD}, which is too old to take over" in said.stderr
    return made


def test_the_daemon_stays_as_it_is_until_a_start(daemon: Skewed) -> None:
    pid = daemon.pid
    assert daemon.serving() == ("r1", NEW)
    assert daemon.which() == ["r1", OLD]
    assert daemon.pid_is_still(pid)
    daemon.restart()
    assert daemon.serving() == ("r1", OLD)


def test_old_workers_run_report_and_end_tasks(daemon: Skewed) -> None:
    with daemon.client() as client:
        story = client.submit("stays", {"n": 3})
        daemon.reached(story.id, "0")
        daemon.open_gate("go")
        assert story.result(30) == [3, "r1", OLD]
        assert story.status().progress == {"done": 3, "total": 3, "note": "going on"}
        with pytest.raises(TaskFailed, match="as it should"):
            client.submit("fails").result(30)
    assert daemon.items(story.id) == ["first", "0", "1", "2"]


def test_an_old_zygote_tells_no_types_so_that_none_are_checked(daemon: Skewed) -> None:
    with daemon.client() as client:
        assert client.submit("typed", {"n": "x"}).result(30) == "x"
        daemon.reload("r2")
        with pytest.raises(BadArguments, match="typed: `n` must be an int, not a str"):
            client.submit("typed", {"n": "x"})


def test_the_task_of_an_old_worker_is_cancelled(daemon: Skewed) -> None:
    with daemon.client() as client:
        task = client.submit("moves", {"n": 3})
        daemon.reached(task.id, "0")
        client.cancel(task.id)
        with pytest.raises(TaskCancelled):
            task.result(30)
    assert daemon.items(task.id) == ["first", "0"]


def test_an_old_worker_that_is_killed_repeats_the_item_in_hand_alone(daemon: Skewed) -> None:
    with daemon.client() as client:
        task = client.submit("stays", {"n": 4})
        os.kill(daemon.reached(task.id, "0").pid, signal.SIGKILL)
        daemon.reached(task.id, "0", attempt=2)
        daemon.open_gate("go")
        assert task.result(30) == [4, "r1", OLD]
        assert client.submit("dies").result(30) == "after all"
    assert daemon.items(task.id) == ["first", "0", "0", "1", "2", "3"]


def test_tasks_of_old_workers_finish_there_or_go_on_with_the_new_ones(daemon: Skewed) -> None:
    pid = daemon.pid
    with daemon.client() as client:
        stays, moves = client.submit("stays", {"n": 4}), client.submit("moves", {"n": 4})
        for task in (stays, moves):
            daemon.reached(task.id, "0")
        daemon.reload("r2")
        assert moves.result(30) == [4, "r2", NEW]
        daemon.open_gate("go")
        assert stays.result(30) == [4, "r1", OLD]
    assert daemon.items(moves.id) == daemon.items(stays.id) == ["first", "0", "1", "2", "3"]
    assert daemon.serving() == ("r2", NEW)
    assert daemon.pid_is_still(pid)


@pytest.mark.parametrize("how", ["checkpoint", "now"])
def test_an_old_revision_is_drained_before_its_task_ends(daemon: Skewed, how: str) -> None:
    with daemon.client() as client:
        task = client.submit("stays_until_asked", {"n": 3})
        daemon.reached(task.id, "0")
        daemon.reload("r2")
        assert client.drain("r1", how)["asked"] == 1
        assert task.result(30) == [3, "r2", NEW]
    eventually(lambda: set(daemon.zygotes()) == {"r2"}, "r1 has drained")


def test_an_old_zygote_that_is_killed_is_started_again(daemon: Skewed) -> None:
    before = daemon.zygotes()["r1"]
    os.kill(before, signal.SIGKILL)
    eventually(lambda: daemon.zygotes().get("r1", before) != before, "another zygote of r1")
    assert daemon.which() == ["r1", OLD]


def test_tasks_go_back_to_an_older_taskd_with_what_they_have_saved(daemon: Skewed) -> None:
    daemon.reload("r2")
    with daemon.client() as client:
        moves = client.submit("moves", {"n": 4})
        daemon.reached(moves.id, "0")
        told = client.rollback()
        assert moves.result(30) == [4, "r1", OLD]
    assert told["revision"] == "r1"
    assert not repeated(daemon.effects())


def test_an_old_release_is_planned_by_its_own_worker(daemon: Skewed) -> None:
    daemon.reload("r2")
    with daemon.client() as client:
        waiting = client.submit("which", delay=3600.0)
        running = client.submit("moves", {"n": 2})
        daemon.reached(running.id, "0")
        plan = client.reload(daemon.path("releases", "r1"), plan=True)["plan"]
        assert [(row["name"], row["verdict"]) for row in plan["waiting"]] == [
            ("which", "continues")
        ]
        assert [(row["name"], row["verdict"]) for row in plan["running"]] == [("moves", "moves")]
        assert daemon.serving() == ("r2", NEW)
        for task in (waiting, running):
            task.cancel()


def test_an_old_release_that_lacks_a_waiting_task_is_refused(daemon: Skewed, old: Python) -> None:
    daemon.with_app("r0", old, "from taskd import task\n\n@task\ndef other():\n    return 1\n")
    with daemon.client() as client:
        waiting = client.submit("which", delay=3600.0)
        with pytest.raises(DeployRefused, match="there is no task 'which'"):
            client.reload(daemon.path("releases", "r0"))
        assert daemon.serving() == ("r1", NEW)
        waiting.cancel()


SECRET = """
@task(on_deploy="checkpoint")
def takes(ctx, token):
    ctx.state["token"] = token
    ctx.checkpoint()
    mark("saved")
    until_asked(ctx) if ctx.attempt == 1 else None
    ctx.checkpoint()
    return ["REVISION", type(token).__name__, ctx.state["token"] == token, token]
"""


def test_a_task_with_a_secret_goes_there_and_back(daemon: Skewed, old: Python, new: Python) -> None:
    daemon.with_app("r3", new, APP + SECRET)
    daemon.with_app("r4", old, APP + SECRET)
    daemon.reload("r3")
    token = Secret("hunter2")
    with daemon.client() as client:
        task = client.submit("takes", {"token": token})
        daemon.reached(task.id, "saved")
        daemon.let_fail("trial: load")
        daemon.reload("r4")
        assert daemon.serving() == ("r4", NEW)
        assert task.result(30) == ["r4", "Secret", True, token]
        back = client.submit("takes", {"token": token})
        daemon.reached(back.id, "saved")
        daemon.point("r3")
        daemon.reload()
        assert back.result(30) == ["r3", "Secret", True, token]


def test_a_release_without_a_python_has_the_one_of_the_start_whatever_runs_the_daemon(
    daemon: Skewed, following: Python
) -> None:
    daemon.with_app("r3", following)
    daemon.with_app("r4")
    daemon.reload("r3")
    assert daemon.serving() == ("r3", NEXT)
    daemon.reload("r4")
    assert daemon.serving() == ("r4", NEW)
    assert daemon.which() == ["r4", NEW]
    eventually(lambda: set(daemon.zygotes()) == {"r4"}, "the others are gone")
    daemon.restart()
    assert daemon.serving() == ("r4", NEW)

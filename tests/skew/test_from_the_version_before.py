"""A running daemon of the version before comes to this version: by a release, in place, by a start.

A release without a Python of its own has the daemon's: this version is there if it was put in the
place of the one before.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from decimal import Decimal

import pytest
from pythons import NEW, NEXT, OLD, Python
from skewed import Skewed
from support import processes
from support.daemon import repeated
from support.waiting import eventually

from taskd.errors import DeployRefused, TaskFailed


@pytest.fixture
def daemon(skewed: Callable[..., Skewed], replaceable: Python) -> Skewed:
    """A daemon of the version before; r1 serves."""
    made = skewed(replaceable)
    for name in ("r1", "r2", "r4"):
        made.with_app(name)
    made.point("r1")
    made.start()
    assert made.serving() == ("r1", OLD)
    return made


@pytest.mark.parametrize("how", ["in place", "by a release"])
def test_the_first_deploy_after_an_upgrade_brings_this_version(
    daemon: Skewed, replaceable: Python, new: Python, how: str
) -> None:
    if how == "by a release":
        new.be_of(daemon.path("releases", "r2"))
    pid = daemon.pid
    with daemon.raw() as carried, daemon.client() as client:
        stays, moves = client.submit("stays", {"n": 4}), client.submit("moves", {"n": 4})
        stream = carried.start("follow", tasks=[stays.id, moves.id])
        for task in (stays, moves):
            daemon.reached(task.id, "0")
        if how == "in place":
            replaceable.install(NEW)
        daemon.reload("r2")
        assert daemon.serving() == ("r2", NEW)
        assert moves.result(30) == [4, "r2", NEW]
        daemon.open_gate("go")
        assert stays.result(30) == [4, "r1", OLD]
        carried.reply_to(stream)
        ends = [item for item in carried.items(stream) if item["state"] == "succeeded"]
        assert len(ends) == 2, "the connection and its stream went over to the new version"
    assert not repeated(daemon.effects())
    assert daemon.pid_is_still(pid)
    assert daemon.which() == ["r2", NEW]
    eventually(lambda: set(daemon.zygotes()) == {"r2"}, "the old zygote has gone")


def test_after_an_upgrade_in_place_a_deploy_is_handed_over_as_between_equals(
    daemon: Skewed, replaceable: Python
) -> None:
    replaceable.install(NEW)
    daemon.reload("r2")
    with daemon.client() as client:
        plan = client.reload(daemon.path("releases", "r1"), plan=True)["plan"]
        assert plan["target"] == "r1"
        assert client.rollback()["revision"] == "r1"
    assert daemon.serving() == ("r1", NEW)


def test_a_restart_brings_this_version_with_all_that_was_saved(
    daemon: Skewed, replaceable: Python
) -> None:
    with daemon.client() as client:
        moves = client.submit("moves", {"n": 4})
        waiting = client.submit("which", delay=3600.0)
        done = client.submit("which")
        assert done.result(30) == ["r1", OLD]
        daemon.reached(moves.id, "0")
    replaceable.install(NEW)
    daemon.restart()
    assert daemon.serving() == ("r1", NEW)
    with daemon.client() as client:
        assert client.handle(moves.id).result(30) == [4, "r1", NEW]
        assert client.task(done.id).result == ["r1", OLD]
        assert client.task(waiting.id).state == "scheduled"
        client.cancel(waiting.id)
    assert daemon.items(moves.id) == ["first", "0", "1", "2", "3"]
    assert [effect.attempt for effect in daemon.effects(moves.id)] == [1, 1, 2, 2, 2]


def test_a_task_that_outlives_a_killed_daemon_of_the_version_before_is_taken_in(
    daemon: Skewed, replaceable: Python
) -> None:
    with daemon.client() as client:
        stays = client.submit("stays", {"n": 3})
    worker = daemon.reached(stays.id, "0").pid
    daemon.kill(signal.SIGKILL)
    replaceable.install(NEW)
    daemon.start()
    assert daemon.serving() == ("r1", NEW)
    daemon.open_gate("go")
    with daemon.client() as client:
        assert client.handle(stays.id).result(30) == [3, "r1", OLD]
    eventually(lambda: not processes.is_alive(worker), "the old worker is done")
    assert daemon.items(stays.id) == ["first", "0", "1", "2"]


def test_tasks_travel_over_two_versions_and_back(
    daemon: Skewed, replaceable: Python, following: Python
) -> None:
    """This version in the place of the one before, then a release with the next one, and back."""
    pid = daemon.pid
    daemon.with_app("r3", following)
    with daemon.client() as client:
        stays, travels = client.submit("stays", {"n": 3}), client.submit("travels", {"n": 5})
        daemon.open_gate("item-0")
        daemon.reached(travels.id, "0")
        replaceable.install(NEW)
        steps = [("r2", NEW), ("r3", NEXT), ("r2", NEW), ("r4", NEW)]
        for number, (name, version) in enumerate(steps, 1):
            told = client.rollback() if number == 3 else daemon.reload(name)
            assert told["revision"] == name
            assert daemon.serving() == (name, version)
            assert daemon.which() == [name, version]
            daemon.reached(travels.id, str(number))
            daemon.open_gate(f"item-{number}")
        assert travels.result(30) == ["r1", "r2", "r3", "r2", "r4"]
        daemon.open_gate("go")
        assert stays.result(30) == [3, "r1", OLD]
        assert {event["state"] for event in stays.follow()} == {"queued", "running", "succeeded"}
        assert len(client.tasks()) == 6
    assert not repeated(daemon.effects())
    assert daemon.pid_is_still(pid)


def test_the_workers_of_a_running_zygote_need_no_file_of_taskd_any_more(
    skewed: Callable[..., Skewed], replaceable: Python
) -> None:
    """While ``pip install -U`` replaces them, and until the next deploy, tasks begin and end."""
    daemon = skewed(replaceable.install(NEW))
    for name in ("r1", "r2"):
        daemon.with_app(name)
    daemon.point("r1")
    daemon.start()
    shutil.rmtree(replaceable.library)
    with daemon.client() as client:
        assert daemon.which() == ["r1", NEW]
        assert client.submit("alongside").result(30)["plain"] == {Decimal("1.5"), 2}
        for name, why in (("fails", "as it should"), ("returns_an_object", "object")):
            with pytest.raises(TaskFailed, match=why):
                client.submit(name).result(30)
        assert client.submit("dies").result(30) == "after all"
        cancelled, moves = client.submit("moves", {"n": 3}), client.submit("moves", {"n": 3})
        daemon.reached(cancelled.id, "0")
        cancelled.cancel()
        assert cancelled.wait(30).state == "cancelled"
        command = client.submit("command", {"argv": ["/bin/echo", "hello"]})
        assert command.wait(30).state == "succeeded"
        daemon.reached(moves.id, "0")
        with pytest.raises(DeployRefused):
            daemon.reload("r2")
        replaceable.install(NEXT)
        daemon.reload("r2")
        assert moves.result(30) == [3, "r2", NEXT]
    assert daemon.serving() == ("r2", NEXT)

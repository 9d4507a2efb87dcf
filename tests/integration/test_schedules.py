"""Schedules with a real daemon: each slot runs once, over deploys, kills and pauses."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from support.daemon import Daemon
from support.waiting import eventually

from taskd.errors import DeployRefused, NotAllowed, Refused

PLAIN = """
from taskd import task
from side import gate, mark

@task
def report(to: str = "all") -> str:
    mark(to)
    return "REVISION"

@task
def waits() -> str:
    mark("begin")
    gate("go")
    return "REVISION"
"""

OFTEN = (
    PLAIN
    + """
@task(every="1s", overlap="run")
def often(ctx) -> str:
    mark("often")
    ctx.log.info("for %s", ctx.slot.timestamp())
    return "REVISION"
"""
)

NIGHTLY = (
    PLAIN
    + """
@task(cron="0 3 * * *", tz="Europe/Berlin")
def nightly() -> str:
    return "REVISION"
"""
)


def schedule(client: Any, name: str) -> dict[str, Any]:
    found = [each for each in client.schedules() if each["name"] == name]
    return defaultdict(lambda: None, found[0] if found else {})


def slots(daemon: Daemon, word: str) -> list[tuple[str, str]]:
    """Each slot that was submitted, with its task, as the log tells it."""
    lines = [line for line in daemon.log().splitlines() if f"schedule={word} " in line]
    told = [dict(each.split("=", 1) for each in line.split() if "=" in each) for line in lines]
    return [(each["slot"], each["task"]) for each in told if "task" in each]


def test_a_schedule_in_the_code_runs_each_slot_once_over_deploys_and_kills(
    new_daemon: Callable[..., Daemon],
) -> None:
    """With a slot due every second, some are due in each of the steps."""
    daemon = new_daemon().with_releases(OFTEN, "r1", "r2", "r3").start()
    with daemon.client() as client:
        eventually(lambda: len(client.tasks(name="often")) >= 2)
        daemon.reload("r2")
        eventually(lambda: any(t.revision == "r2" for t in client.tasks(name="often")))
        daemon.kill()
        daemon.start()
        before = len(client.tasks(name="often"))
        eventually(lambda: len(client.tasks(name="often")) > before)
        daemon.reload("r3")
        daemon.kill()
        daemon.start()
        eventually(lambda: any(t.revision == "r3" for t in client.tasks(name="often")))
        client.pause_schedule("often")
        eventually(lambda: schedule(client, "often")["running"] == [])
        tasks = client.tasks(name="often", limit=1000)
        submitted = slots(daemon, "often")
        assert len({slot for slot, _ in submitted}) == len(submitted), "no slot ran twice"
        assert {int(task) for _, task in submitted} <= {task.id for task in tasks}
        assert all(len(daemon.items(task.id)) == 1 for task in tasks)
        for slot, task in submitted:
            meant = datetime.fromisoformat(slot).timestamp()
            with open(daemon.path("logs", f"{task}.log"), encoding="utf-8") as log:
                assert f"for {meant}\n" in log.read()
        # A master may die before it has logged what it has submitted.
        assert len(tasks) - len(submitted) in (0, 1, 2)


def test_a_slot_that_is_due_while_no_master_lives_runs_late_and_once(
    new_daemon: Callable[..., Daemon],
) -> None:
    config = {"schedules": {"rarely": {"task": "report", "args": {"to": "a"}, "every": "20s"}}}
    daemon = new_daemon(**config).with_releases(PLAIN, "r1").start()
    with daemon.client() as client:
        eventually(lambda: schedule(client, "rarely")["next"] is not None)
        due = schedule(client, "rarely")["next"]
        daemon.kill()
        eventually(lambda: time.time() > due + 0.5)
        daemon.start()
        task = eventually(lambda: client.tasks(name="report"))[-1]
        assert client.wait([task.id], 30)[0].outcome() == "r1"
        assert schedule(client, "rarely")["last_slot"] >= due
        daemon.kill()
        daemon.start()
        after = eventually(lambda: schedule(client, "rarely")["next"])
        tasks = client.tasks(name="report")  # on a machine that is busy a next slot may have come
        assert len(tasks) == 1 or after > due + 20.0
        assert daemon.items(task.id) == ["a"]


def test_what_a_deploy_does_with_schedules_is_in_its_plan_and_done_at_the_confirm(
    new_daemon: Callable[..., Daemon],
) -> None:
    daemon = new_daemon().with_releases(PLAIN, "r1")
    daemon.release("r2", NIGHTLY)
    daemon.release("r3", NIGHTLY.replace("0 3", "30 2"))
    daemon.release("bad", NIGHTLY.replace("Europe/Berlin", "Europe/Berlim"))
    daemon.point("r1")
    daemon.start()
    with daemon.client() as client:
        assert client.schedules() == []
        plan = client.reload(daemon.path("releases", "r2"), plan=True)["plan"]
        (row,) = plan["schedules"]
        assert (row["name"], row["change"]) == ("nightly", "new")
        assert "03:00" in row["text"] and "Europe/Berlin" in row["text"]
        assert not any("the clocks go" in each for each in plan["warnings"])
        assert client.schedules() == []
        daemon.reload("r2")
        eventually(lambda: schedule(client, "nightly")["next"] is not None)
        client.pause_schedule("nightly")
        with pytest.raises(DeployRefused, match="schedule 'nightly': there is no time zone"):
            daemon.reload("bad")
        plan = daemon.reload("r3")["plan"]
        assert [row["change"] for row in plan["schedules"]] == ["changed"]
        told = {each.rpartition(": ")[2] for each in plan["warnings"] if "the clocks go" in each}
        assert told == {"02:30 runs once", "02:30 runs at 03:00"}
        plan = daemon.reload("r1")["plan"]
        assert [row["change"] for row in plan["schedules"]] == ["dropped"]
        eventually(lambda: schedule(client, "nightly")["dropped"])
        client.rollback()
        eventually(lambda: not schedule(client, "nightly")["dropped"])
        assert schedule(client, "nightly")["paused"], "a rollback finds the pause"


@pytest.mark.parametrize(
    ("section", "why"),
    [
        ({"task": "reprot", "every": "1h"}, "r1 has no task 'reprot'; did you mean 'report'"),
        ({"task": "report", "every": "1h", "args": {"too": "a"}}, "unexpected argument 'too'"),
        ({"task": "report", "every": "1h", "args": {"to": 1}}, "to"),
        ({"task": "report", "cron": "0 3 * * * *"}, "has six. For seconds write every"),
        ({"task": "report"}, "say either cron or every"),
    ],
)
def test_a_schedule_that_cannot_be_refuses_the_deploy_and_stops_no_other_at_a_start(
    new_daemon: Callable[..., Daemon], section: dict[str, Any], why: str
) -> None:
    good = {"task": "report", "every": "1h"}
    config = {"schedules": {"wrong": section, "good": good}}
    daemon = new_daemon(**config).with_releases(PLAIN, "r1").start()
    with daemon.client() as client:
        with pytest.raises(DeployRefused, match=f"schedule 'wrong': .*{why}"):
            client.reload()
        eventually(lambda: schedule(client, "good")["next"])
        assert why in schedule(client, "wrong")["problem"] or section.get("args")
        eventually(lambda: any("'wrong'" in text for text in client.status()["problems"]))


def test_a_name_has_one_place(new_daemon: Callable[..., Daemon]) -> None:
    config = {"schedules": {"nightly": {"task": "report", "every": "1h"}}}
    daemon = new_daemon(**config).with_releases(NIGHTLY, "r1").start()
    with daemon.client() as client, pytest.raises(DeployRefused, match="has one place"):
        client.reload()


def test_pausing_resuming_and_running_by_hand(new_daemon: Callable[..., Daemon]) -> None:
    config = {"schedules": {"by-hand": {"task": "waits", "cron": "0 3 1 1 *"}}}
    daemon = new_daemon(**config).with_releases(PLAIN, "r1").start()
    with daemon.client() as client:
        eventually(lambda: schedule(client, "by-hand")["next"])
        assert daemon.said("schedules", "pause", "by-hand") == "schedule by-hand: paused\n"
        assert "paused" in daemon.said("schedules")
        daemon.kill()
        daemon.start()
        eventually(lambda: schedule(client, "by-hand")["paused"])
        task = int(daemon.said("schedules", "run", "by-hand"))
        daemon.reached(task, "begin")
        with pytest.raises(Refused, match=f"task {task} of schedule 'by-hand' runs still"):
            client.run_schedule("by-hand")
        second = client.run_schedule("by-hand", force=True)
        assert second["created"] and second["id"] != task
        assert daemon.said("schedules", "resume", "by-hand") == "schedule by-hand: resumed\n"
        daemon.open_gate("go")
        client.wait([task, second["id"]], 30)
        (line,) = daemon.said("schedules", "--json").splitlines()
        found = json.loads(line)
        assert (found["last_slot"], found["last_task"]) == (None, second["id"])
        assert found["next"] and not found["paused"]
        with pytest.raises(Refused, match="no schedule"):
            client.pause_schedule("other")


def test_while_everything_is_paused_no_slot_is_submitted(new_daemon: Callable[..., Daemon]) -> None:
    daemon = new_daemon().with_releases(OFTEN, "r1").start()
    with daemon.client() as client:
        eventually(lambda: client.tasks(name="often"))
        client.pause()
        mark = schedule(client, "often")["last_slot"]
        eventually(lambda: time.time() > mark + 4)
        assert schedule(client, "often")["last_slot"] == mark
        client.resume()
        eventually(lambda: schedule(client, "often")["last_slot"] > mark)
        skipped = schedule(client, "often")["skipped"]  # on a machine that is busy
        assert skipped is None or skipped > mark + 3, "in the pause there were none"


def test_a_slot_waits_for_an_earlier_run(new_daemon: Callable[..., Daemon]) -> None:
    config = {"schedules": {"one": {"task": "waits", "every": "1s", "overlap": "queue"}}}
    daemon = new_daemon(**config).with_releases(PLAIN, "r1").start()
    with daemon.client() as client:
        (first,) = eventually(lambda: client.tasks(name="waits"))
        waits = eventually(lambda: schedule(client, "one")["waits"])
        assert len(client.tasks(name="waits")) == 1
        daemon.open_gate("go")
        eventually(lambda: schedule(client, "one")["last_slot"] >= waits)
        assert len(client.tasks(name="waits")) >= 2
        assert first.id == min(task.id for task in client.tasks(name="waits"))


def test_only_operators_see_and_steer_schedules(new_daemon: Callable[..., Daemon]) -> None:
    import taskd

    daemon = new_daemon().with_releases(PLAIN, "r1").start()
    with taskd.Client(daemon.submit_socket) as client:
        for asks in (client.schedules, lambda: client.pause_schedule("a")):
            with pytest.raises(NotAllowed):
                asks()

"""Tasks that report nothing for long are marked and told, over a deploy and a kill, and go on."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from support.daemon import Daemon
from support.waiting import eventually

APP = """
import sys, time
from taskd import task
from side import gate, is_open, mark

@task(silent_after=0.3)
def hangs(ctx) -> str:
    mark("begin")
    gate("report")
    ctx.progress(1, 2, "here")
    mark("reported")
    gate("log")
    print("a line")
    gate("end")
    return "REVISION"

@task(queue="mail")
def writes(ctx) -> str:
    for i in ctx.each("items", range(1_000_000)):
        if is_open("end"):
            return "REVISION"
        time.sleep(0.002)
"""


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    made = new_daemon(queues={"mail": {"concurrency": 1, "silent_after": 1}})
    made.constants["taskd.master.attempts.silences.AGAIN"] = 0.02
    return made.with_releases(APP, "r1", "r2").start()


def test_a_silent_task_is_told_once_for_each_silence_and_goes_on(daemon: Daemon) -> None:
    with daemon.client() as client:
        busy, task = client.submit("writes"), client.submit("hangs")
        daemon.reached(task.id, "begin")
        eventually(lambda: task.status().silent, "it is silent")
        eventually(lambda: "silent task=" in daemon.log(), "it is told")
        why = str(task.status().reason)
        assert "silent: has reported nothing since" in why
        assert "silent" in daemon.said("list") and "silent" in daemon.said("show", task.id)
        assert json.loads(daemon.said("show", "--json", task.id))["silent"] > 0
        daemon.reload("r2")
        assert task.status().silent
        daemon.kill()
        daemon.start()
        eventually(lambda: task.status().silent, "it is silent still")

        def told() -> list[str]:
            # All that was written before a read is on disk by then.
            events = client.follow([task.id])
            found = []
            for event in events:
                found.append(str(event["reason"]))
                if len(found) == 1 + count:
                    break
            return [each for each in found if each.startswith("silent")]

        count = 2
        assert told() == ["silent: has reported nothing for 0.3s"]
        daemon.open_gate("report")
        eventually(lambda: "reports again" in daemon.log(), "it has reported")
        eventually(lambda: task.status().silent, "it is silent again")
        count = 3
        assert len(told()) == 2
        daemon.open_gate("log")
        eventually(lambda: daemon.log().count("reports again") == 2, "its log grows")
        assert (busy.status().silent, busy.status().state) == (None, "running")
        daemon.open_gate("end")
        assert (task.result(30), busy.result(30)) == ("r1", "r1")
        assert task.status().attempt == 1
        assert daemon.items(task.id) == ["begin", "reported"]


def test_show_tells_the_timeout_and_how_much_of_it_is_used(daemon: Daemon) -> None:
    with daemon.client() as client:
        task = client.submit("writes", timeout="1h")
        eventually(lambda: (task.status().timeout or {"used": 0})["used"] > 0.05, "it runs")
        daemon.kill()
        daemon.start()
        found = eventually(lambda: task.status().timeout, "it is told")
        assert found["limit"] == 3600 and 0.05 < found["used"] < 3600
        assert "1h00m, " in daemon.said("show", task.id)
        daemon.open_gate("end")
        task.result(30)
        assert task.status().timeout is None

"""Tasks that must start within a time, over a stop, a kill and a deploy."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.daemon import Daemon

from taskd.errors import Refused

APP = """
import time
from taskd import task
from side import is_open, mark

@task(queue="one")
def blocks(ctx) -> None:
    mark("begin")
    while not is_open("go"):
        ctx.checkpoint()
        time.sleep(0.005)

@task(queue="one")
def quick() -> str:
    mark("begin")
    return "ran"
"""


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    made = new_daemon(queues={"one": {"concurrency": 1}})
    made.release("r1", APP)
    made.release("r2", APP)
    made.point("r1")
    return made


def test_what_waits_for_too_long_is_cancelled_and_the_rest_goes_on(daemon: Daemon) -> None:
    with daemon.start().client() as client:
        first = client.submit("blocks")
        daemon.reached(first.id, "begin")
        late = client.submit("quick", expires=0.2)
        later, lasting = client.submit("quick", expires="1h"), client.submit("quick")
        found = late.wait(30)
        assert (found.state, found.attempt) == ("cancelled", 0)
        assert found.reason == "expired: not started within 0.2s"
        assert (later.status().expires or 0) > later.status().submitted + 3599
        daemon.open_gate("go")
        assert [task.result(30) for task in (later, lasting)] == ["ran", "ran"]
        assert later.status().expires is None
        events = list(client.follow([late.id]))
        assert [each["state"] for each in events] == ["queued", "cancelled"]
        assert events[-1]["reason"] == found.reason


@pytest.mark.parametrize("way", ["stop", "kill", "deploy"])
def test_a_time_limit_holds_over_what_happens_to_the_daemon(daemon: Daemon, way: str) -> None:
    with daemon.start().client() as client:
        first = client.submit("blocks")
        daemon.reached(first.id, "begin")
        late, lasting = client.submit("quick", expires=0.5), client.submit("quick", expires="1d")
        held_up = client.submit("quick", delay=3600.0, expires=7200.0)
        until = lasting.status().expires
        if way == "deploy":
            daemon.reload("r2")
    if way == "stop":
        daemon.stop()
    elif way == "kill":
        daemon.kill()
    if way != "deploy":
        daemon.start()
    with daemon.client() as client:
        found = client.handle(late.id).wait(30)
        assert (found.state, found.reason) == ("cancelled", "expired: not started within 0.5s")
        assert client.task(lasting.id).expires == until
        assert client.task(held_up.id).state == "scheduled"
        daemon.open_gate("go")
        assert client.handle(lasting.id).result(30) == "ran"
    assert daemon.items(late.id) == []


def test_a_late_task_can_be_tried_by_hand(daemon: Daemon) -> None:
    with daemon.start().client() as client:
        first = client.submit("blocks")
        daemon.reached(first.id, "begin")
        late = client.submit("quick", expires=0.1)
        late.wait(30)
        late.retry()
        daemon.open_gate("go")
        assert late.result(30) == "ran"


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"expires": 0}, "expires must be a number of seconds .*, above 0, not 0; leave it out"),
        ({"expires": ""}, "above 0, not ''"),
        ({"expires": "soon"}, "above 0, not 'soon'"),
        ({"expires": 5.0, "delay": 5.0}, "it would expire before it is due"),
    ],
)
def test_a_time_limit_that_is_none_is_refused(
    daemon: Daemon, how: dict[str, object], why: str
) -> None:
    with daemon.start().client() as client:
        with pytest.raises(Refused, match=why):
            client.submit("quick", **how)
        assert client.tasks() == []

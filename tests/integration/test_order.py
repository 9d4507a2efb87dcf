"""Tasks that come after others, with a real daemon: over a deploy, kills and a rollback."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from support.daemon import Daemon

from taskd.errors import Refused, UnknownTask
from taskd.protocol.submission import Call

APP = """
from taskd import task
from side import is_open, mark
import time

@task
def link(ctx, n: int, gate: str = "") -> str:
    mark(f"ran{n}")
    while gate and not is_open(gate):
        ctx.checkpoint()
        time.sleep(0.005)
    return str(n) + " " + "REVISION"

@task
def fails(ctx) -> None:
    if not is_open("mended"):
        raise ValueError("no")
"""


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    return new_daemon().with_releases(APP, "r1", "r2").start()


def test_a_chain_goes_on_over_a_deploy_a_kill_and_a_rollback(daemon: Daemon) -> None:
    with daemon.client() as client:
        chain = [client.submit("link", {"n": 0, "gate": "open"})]
        for n in range(1, 5):
            chain.append(client.submit("link", {"n": n}, after=chain[-1]))
        both = client.submit("link", {"n": 5}, after=[chain[0], chain[4].id])
        daemon.reached(chain[0].id, "ran0")
        info = both.status()
        assert (info.state, info.shown, info.run_at, info.waits_for) == (
            "scheduled",
            "waiting",
            None,
            2,
        )
        assert info.reason == (
            f"waits for tasks {chain[0].id} (running), {chain[4].id} (scheduled)"
        )
        daemon.reload("r2")
        daemon.kill()
        daemon.start()
        assert both.status().waits_for == 2
        client.rollback()
        events = client.follow([both.id])
        daemon.open_gate("open")
        assert [each["state"] for each in events] == [
            *("scheduled", "queued", "running", "succeeded")
        ]
        assert [task.result(30) for task in (*chain, both)] == [f"{n} r1" for n in range(6)]
        for n, task in enumerate([*chain, both]):
            assert daemon.items(task.id) == [f"ran{n}"]


def test_a_failure_holds_cancels_or_lets_run_what_comes_after_it(daemon: Daemon) -> None:
    with daemon.client() as client:
        first = client.submit("fails")
        held = client.submit("link", {"n": 1}, after=first)
        dropped = client.submit("link", {"n": 2}, after=first, if_failed="cancel")
        below = client.submit("link", {"n": 3}, after=dropped, if_failed="cancel")
        cleaner = client.submit("link", {"n": 4}, after=first, if_failed="run")
        assert cleaner.result(30) == "4 r1"
        assert client.task(below.id).state == "cancelled"
        info = held.status()
        assert info.reason == (
            f"waits for task {first.id}, which failed: `taskctl retry {first.id}`, or cancel this "
            "one"
        )
        daemon.open_gate("mended")
        first.retry()
        assert held.result(30) == "1 r1"


def test_the_command_line_says_after_what_a_task_comes(daemon: Daemon) -> None:
    first = daemon.said("submit", "link", "n=1", "gate=open").strip()
    second = daemon.said("submit", "--after", first, "link", "n=2").strip()
    third = daemon.said(
        *("run", "--after", first, "--after", second, "--if-failed", "run", "--", "true")
    ).strip()
    assert f"after      {first} (" in daemon.said("show", third)
    assert "; if one fails: run" in daemon.said("show", third)
    told = json.loads(daemon.said("show", "--json", third))
    assert [each["task"] for each in told["after"]] == [first, second]
    listed = daemon.said("list", "--columns", "id,state,after")
    assert f"{first} (" in listed
    assert "waiting" in listed
    daemon.open_gate("open")
    daemon.said("wait", third)
    daemon.taskctl("submit", "--after", "99999", "link", "n=1")
    for how, why in (
        ({"if_failed": "run"}, "if_failed without after"),
        ({"after": int(first), "if_failed": "no"}, "must be hold, cancel or run"),
        ({"after": range(1, 1002)}, "1,000 at most"),
    ):
        with daemon.client() as client, pytest.raises(Refused, match=why):
            client.submit("link", {"n": 1}, **how)
    with daemon.client() as client, pytest.raises(UnknownTask, match="no task 99999"):
        client.submit("link", {"n": 1}, after=99999)


def test_what_follows_a_batch_runs_once_over_a_kill(daemon: Daemon) -> None:
    with daemon.client() as client:
        calls = [Call("link", {"n": n}, {}) for n in range(3)] + [Call("fails", {}, {})]
        made = client.batch(
            calls,
            then=Call("link", {"n": 10}, {"priority": 2}),
            on_end=Call("link", {"n": 11}, {}),
        )
        assert made.then is not None
        assert made.on_end is not None
        assert made.on_end.result(30) == "11 r1"
        assert made.then.status().waits_for == 1
        daemon.kill()
        daemon.start()
        daemon.open_gate("mended")
        made.tasks[3].retry()
        assert made.then.result(30) == "10 r1"
        assert daemon.items(made.then.id) == ["ran10"]
        assert daemon.items(made.on_end.id) == ["ran11"]
        alone = client.batch([], then=Call("link", {"n": 12}, {}))
        assert alone.then is not None
        assert (alone.tasks, alone.then.result(30)) == ([], "12 r1")
        with pytest.raises(Refused, match="1,000 at most"):
            client.batch([Call("link", {"n": 1}, {})] * 1000, then=calls[0])

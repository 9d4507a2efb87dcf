"""Limits with a real daemon: never passed, over deploys, a kill -9, a rollback and new numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from support.daemon import Daemon
from support.waiting import eventually

from taskd.errors import BadArguments, DeployRefused

APP = """
import taskd
from taskd import task
from side import gate, mark, until_asked

taskd.limit("customer", concurrency=1)

@task(limit="customer:{customer}")
def serve(customer: int, word: str) -> str:
    mark("begin")
    gate(word)
    return "REVISION"

@task(limit="customer:{customer}", on_deploy="checkpoint")
def moves(ctx, customer: int) -> str:
    mark("begin")
    if ctx.attempt == 1:
        until_asked(ctx)
    ctx.checkpoint()
    gate("moved")
    return "REVISION"

@task(concurrency=2)
def pair(word: str) -> None:
    mark("begin")
    gate(word)

@task(limits=["api"])
def call(word: str = "call") -> None:
    mark("begin")
    gate(word)
"""

API = {"api": {"concurrency": 1}}


def states(client: Any, tasks: list[Any]) -> list[str]:
    return [client.task(each.id).state for each in tasks]


def test_a_key_is_never_held_by_more_over_a_deploy_a_kill_and_a_rollback(
    new_daemon: Callable[..., Daemon],
) -> None:
    daemon = new_daemon(limits=API).with_releases(APP, "r1", "r2").start()
    with daemon.client() as client:
        submit = lambda word: client.submit("serve", {"customer": 7, "word": word})  # noqa: E731
        tasks = [submit(word) for word in "abcd"]
        other = client.submit("serve", {"customer": 8, "word": "other"})
        daemon.reached(tasks[0].id, "begin")
        daemon.reached(other.id, "begin")
        daemon.reload("r2")
        why = client.why(tasks[1].id)
        assert why["kind"] == "limit"
        assert "'customer:7' (1 at once; by r" in why["text"]
        assert f"held by task {tasks[0].id} (r1, since" in why["text"]
        assert [each["task"] for each in why["limit"]["holders"]] == [tasks[0].id]
        assert states(client, tasks) == ["running"] + 3 * ["queued"]
        daemon.open_gate("a")
        assert daemon.reached(tasks[1].id, "begin").revision == "r2"
        daemon.kill()
        daemon.start()
        assert states(client, tasks[1:]) == ["running"] + 2 * ["queued"]
        daemon.open_gate("b")
        daemon.reached(tasks[2].id, "begin")
        client.rollback()
        assert client.why(tasks[3].id)["limit"]["held"] == 1
        daemon.open_gate("c")
        assert daemon.reached(tasks[3].id, "begin").revision == "r1"
        daemon.open_gate("d")
        daemon.open_gate("other")
        eventually(
            lambda: set(states(client, [*tasks, other])) == {"succeeded"}, "all have succeeded"
        )


def test_a_task_that_moves_takes_its_place_along(new_daemon: Callable[..., Daemon]) -> None:
    daemon = new_daemon(limits=API).with_releases(APP, "r1", "r2").start()
    with daemon.client() as client:
        mover = client.submit("moves", {"customer": 7})
        daemon.reached(mover.id, "begin")
        better = client.submit("serve", {"customer": 7, "word": "go"}, priority=9)
        daemon.reload("r2")
        assert daemon.reached(mover.id, "begin", attempt=2).revision == "r2"
        assert states(client, [mover, better]) == ["running", "queued"]
        daemon.open_gate("moved")
        daemon.reached(better.id, "begin")
        daemon.open_gate("go")
        better.result(timeout=60)


def test_a_number_of_the_file_changes_at_a_deploy_and_reaches_what_waits(
    new_daemon: Callable[..., Daemon],
) -> None:
    daemon = new_daemon(limits=API).with_releases(APP, "r1", "r2").start()
    with daemon.client() as client:
        tasks = [client.submit("call") for _ in range(4)]
        pairs = [client.submit("pair", {"word": "pair"}) for _ in range(3)]
        daemon.reached(tasks[0].id, "begin")
        eventually(lambda: states(client, pairs) == ["running"] * 2 + ["queued"], "two run")
        listed = {each.id: each for each in client.tasks(name="call", state="queued")}
        eventually(
            lambda: "api" in (client.task(tasks[3].id).reason or ""), "it is told what keeps it"
        )
        assert listed.keys() == {each.id for each in tasks[1:]}
        said = json.loads(daemon.said("why", tasks[3].id, "--json"))
        assert (said["kind"], said["limit"]["concurrency"]) == ("limit", 1)
        assert "task pair" in client.why(pairs[2].id)["text"]
        daemon.sections["limits"] = {"api": {"concurrency": 3, "rate": "1000/s"}}
        daemon.write_config()
        plan = client.reload(daemon.path("releases", "r2"), plan=True)["plan"]
        assert any("'api': 1 at once becomes 3 at once" in each for each in plan["warnings"])
        daemon.reload("r2")
        eventually(lambda: states(client, tasks) == ["running"] * 3 + ["queued"], "three run")
        for word in ("call", "pair"):
            daemon.open_gate(word)
        for each in [*tasks, *pairs]:
            each.result(timeout=60)


def test_a_rate_goes_on_over_a_kill(new_daemon: Callable[..., Daemon]) -> None:
    rates = {"pair": {"rate": "1/h"}}
    daemon = new_daemon(limits=API, tasks=rates).with_releases(APP, "r1").start()
    daemon.open_gate("go")
    with daemon.client() as client:
        tasks = [client.submit("pair", {"word": "go"}) for _ in range(2)]
        tasks[0].result(timeout=60)
        daemon.kill()
        daemon.start()
        why = client.why(tasks[1].id)
        assert (why["kind"], why["limit"]["source"]) == ("limit", "taskd.toml")
        assert "its rate lets the next one start in" in why["text"]
        assert 3000 < why["limit"]["wait"] <= 3600


def test_a_limit_without_numbers_and_a_key_that_cannot_be_are_refused(
    new_daemon: Callable[..., Daemon],
) -> None:
    daemon = new_daemon(limits=API).with_releases(APP, "r1", "r2").start()
    with daemon.client() as client:
        with pytest.raises(BadArguments, match="at most 200 characters"):
            odd = APP.replace("customer: int, word", "customer: str, word")
            daemon.release("r3", odd)
            daemon.reload("r3")
            client.submit("serve", {"customer": "x" * 300, "word": "go"})
        daemon.sections["limits"] = {}
        daemon.write_config()
        with pytest.raises(DeployRefused, match=r"task 'call' names the limit 'api'.*no numbers"):
            daemon.reload("r2")

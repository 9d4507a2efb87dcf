"""Tasks are recognised by what they were submitted with, and found by it."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from support.daemon import Daemon

import taskd

APP = """
from taskd import Secret, task
from side import gate, mark

@task
def sends(to: str, password=None, body: str = "") -> str:
    mark("began")
    if to == "slow":
        gate("end")
    if to == "bad":
        raise ValueError("no such mailbox: " + body)
    return to
"""


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    return new_daemon().with_releases(APP, "r1", "r2").start()


def test_arguments_are_told_without_secrets_and_found_over_a_deploy(daemon: Daemon) -> None:
    with daemon.client() as client:
        secret = taskd.Secret("hunter22")
        first = client.submit("sends", {"to": "anna", "password": secret}, key="k1")
        bad = client.submit("sends", {"to": "bad", "body": "x" * 50})
        large = client.submit("sends", {"to": "ben", "body": "y" * 100_000})
        program = client.submit("command", {"argv": ["echo", "two words"]})
        for each in (first, bad, large, program):
            each.wait(30)
        told = client.task(first.id)
        assert told.arguments == "to='anna', password=••••"
        assert told.log is not None and os.path.basename(told.log).startswith(str(first.id))
        assert str(client.task(large.id).arguments).endswith(",018 bytes)")
        assert client.task(program.id).arguments == "echo 'two words'"
        slow = client.submit("sends", {"to": "slow"})
        pid = daemon.reached(slow.id, "began").pid
        daemon.reload("r2")
        shown = client.task(slow.id)
        assert shown.pid == pid and (shown.memory or 0) > 0
        find = lambda **narrow: [task.id for task in client.tasks(**narrow)]  # noqa: E731
        assert find(text="mailbox") == [bad.id]
        assert find(text="anna") == [first.id]
        assert find(text="hunter22", name="sends") == [first.id]
        assert find(key="k1") == [first.id]
        assert find(revision="r1", state="running") == [slow.id]
        assert find(since=told.submitted, until=told.submitted) == [first.id]
        assert find(owner=4_000_000) == []
        daemon.open_gate("end")
        assert slow.result(30) == "slow"

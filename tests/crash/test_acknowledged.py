"""A submission that was acknowledged is on disk: the master is killed right after, 200 times."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.daemon import Daemon
from support.raw import Raw

from taskd.protocol import data
from taskd.protocol.client_side import Reply

KILLS = 200
AT_ONCE = 2
"""Daemons, each with a state directory of its own that is killed on again and again."""

BURST = 5
"""Submissions sent together; the master is killed at the first one's acknowledgement."""

APP = """
from taskd import task

@task
def keep(n: int) -> int:
    return n
"""


def submit_burst(raw: Raw, number: int) -> None:
    for n in range(BURST):
        task = {
            "submission": os.urandom(16),
            "name": "keep",
            "args": data.encode({"n": number * BURST + n}),
            "delay": 86400.0,  # not to be run: what is tested is that they are there
        }
        raw.start("submit", tasks=[task])


def acknowledged(raw: Raw) -> list[int]:
    """The ids of the acknowledgements that had been sent before the master died."""
    found = []
    try:
        while True:
            event = raw.event()
            assert isinstance(event, Reply), event
            found += [task["id"] for task in event.ok["tasks"]]
    except ConnectionError:
        return found


def kill_after_an_acknowledgement(daemon: Daemon, number: int) -> list[int]:
    with daemon.raw() as raw:
        submit_burst(raw, number)
        event = raw.event()
        daemon.kill()
        assert isinstance(event, Reply), event
        return [event.ok["tasks"][0]["id"], *acknowledged(raw)]


def check_there(daemon: Daemon, ids: list[int]) -> None:
    with daemon.raw() as raw:
        for task in ids:
            assert raw.ask("show", task=task)["task"]["state"] == "scheduled"


def kill_again_and_again(daemon: Daemon) -> list[int]:
    ids: list[int] = []
    for number in range(KILLS // AT_ONCE):
        new = kill_after_an_acknowledgement(daemon, number)
        daemon.start()
        check_there(daemon, new)
        ids += new
    return ids


@pytest.mark.timeout(900)
def test_what_was_acknowledged_outlives_200_kills(new_daemon: Callable[..., Daemon]) -> None:
    daemons = [new_daemon() for _ in range(AT_ONCE)]
    for daemon in daemons:
        daemon.with_releases(APP, "r1").start()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(kill_again_and_again, daemons))
    for daemon, ids in zip(daemons, found, strict=True):
        assert len(set(ids)) == len(ids) >= KILLS // AT_ONCE
        check_there(daemon, ids)

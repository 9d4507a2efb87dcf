"""Something else than a file in the place of one of the state directory's: nobody waits for a pipe,
and no link is followed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.daemon import Daemon
from support.waiting import eventually

import taskd

APP = """
from taskd import task

@task
def quick() -> int:
    return 2
"""

OURS = ("confirmed", "confirmed.new", "rejected", "handoff", "after-drain", "lock")
STORE = ("store.db", "store.db-wal", "store.db-shm")
OTHERS = ("zygotes/00.zygote", "slots/00.slot", "slots/00.load", "slots/00.plan")


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    made = new_daemon(hooks={"after_drain": ["true"]})
    return made.with_releases(APP, "r1", "r2")


@pytest.mark.parametrize("name", [*OURS, *STORE, *OTHERS])
def test_a_start_waits_for_no_pipe(daemon: Daemon, name: str) -> None:
    """It serves, or says which file is in its way."""
    planted = daemon.path("state", name)
    os.makedirs(os.path.dirname(planted), 0o700, exist_ok=True)
    os.mkfifo(planted)
    process = daemon.process = daemon.spawn()
    eventually(lambda: process.poll() is not None or daemon.is_answering(), "it serves or ends")
    if process.poll() is None:
        with daemon.client() as client:
            assert client.submit("quick").result(30) == 2
        return
    assert process.wait() == 1
    assert planted in daemon.log()
    Path(planted).unlink(missing_ok=True)  # what is only on its way is gone already
    daemon.start()


@pytest.mark.parametrize("name", OURS[:-1])
def test_nor_does_a_daemon_that_serves(daemon: Daemon, name: str) -> None:
    """At most one deploy is refused for it."""
    daemon.start()
    planted = daemon.path("state", name)
    Path(planted).unlink(missing_ok=True)
    os.mkfifo(planted)
    with daemon.client() as client:
        assert client.status()["revision"] == "r1"
        try:
            daemon.reload("r2")
        except taskd.Refused:
            assert client.status()["revision"] == "r1"
            Path(planted).unlink(missing_ok=True)
            daemon.reload("r2")
        assert client.status()["revision"] == "r2"


def test_a_link_in_the_place_of_confirmed_is_not_followed(daemon: Daemon, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text(json.dumps({"release": daemon.path("releases", "r2")}))
    os.symlink(elsewhere, daemon.path("state", "confirmed"))
    assert daemon.spawn().wait(60) == 1
    assert f"cannot read {daemon.path('state', 'confirmed')}" in daemon.log()

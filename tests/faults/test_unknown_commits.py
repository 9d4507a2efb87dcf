"""The sync of the store's log fails: it is not known whether that commit is on disk. What is in it
is neither acknowledged nor refused until that is known, and done once."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from looking import problems
from support.mounts import Mounted
from support.raw import Raw
from support.waiting import eventually

import taskd

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


@contextmanager
def no_sync(daemon: Mounted) -> Iterator[None]:
    """The master cannot sync the store's log."""
    how = ["strace", "-f", "-p", str(daemon.pid), "-P", daemon.path("state", "store.db-wal")]
    fail = ["-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO", "-o", "/dev/null"]
    with subprocess.Popen([*how, *fail], stderr=subprocess.PIPE, text=True) as tracing:
        assert tracing.stderr is not None
        try:
            assert "attached" in tracing.stderr.readline()
            yield
        finally:
            tracing.terminate()  # it lets go of the master


@pytest.fixture
def daemon(mounted: Callable[..., Mounted]) -> Mounted:
    made = mounted()
    made.start()
    with made.client() as client:
        assert client.submit("quick").result(30) == 0
    return made


def asked(raw: Raw, submission: bytes) -> Any:
    """A request for one task, which waits for its answer."""
    return raw.start("submit", tasks=[{"submission": submission, "name": "quick", "args": b"\xa0"}])


def done(client: taskd.Client) -> int:
    """How many tasks there are; all of them have succeeded."""
    states = client.status()["states"]
    assert sum(states.values()) == states["succeeded"]
    return int(states["succeeded"])


def is_in_doubt(daemon: Mounted) -> bool:
    return any("is it committed?" in problem for problem in problems(daemon))


def test_a_commit_whose_sync_fails_is_answered_once_it_is_made(daemon: Mounted) -> None:
    submission = os.urandom(16)
    with daemon.raw() as raw, daemon.client() as client:
        with no_sync(daemon):
            request = asked(raw, submission)
            eventually(lambda: is_in_doubt(daemon), "status says that it is not known")
            assert done(client) == 1, "the loop does not wait"
        task = int(raw.reply_to(request)["tasks"][0]["id"])
        assert client.handle(task).result(30) == 0
        eventually(lambda: not problems(daemon), "it is over")
        again = raw.reply_to(asked(raw, submission))["tasks"][0]
        assert (int(again["id"]), again["created"]) == (task, False)
        assert done(client) == 2


def test_a_master_that_dies_meanwhile_has_told_nothing_and_the_next_one_does_it_once(
    daemon: Mounted,
) -> None:
    submission = os.urandom(16)
    with daemon.raw() as raw, no_sync(daemon):
        asked(raw, submission)
        eventually(lambda: is_in_doubt(daemon), "status says that it is not known")
        daemon.kill()
    daemon.start()
    with daemon.raw() as raw, daemon.client() as client:
        found = raw.reply_to(asked(raw, submission))["tasks"][0]
        assert found["created"] is False, "the next start has found it in the log"
        assert client.handle(int(found["id"])).result(30) == 0
        assert done(client) == 2


def test_a_stop_does_not_wait_for_ever_for_what_is_in_doubt(daemon: Mounted) -> None:
    submission = os.urandom(16)
    with daemon.raw() as raw, no_sync(daemon):
        asked(raw, submission)
        eventually(lambda: is_in_doubt(daemon), "status says that it is not known")
        assert daemon.stop() == 0
    daemon.start()
    with daemon.raw() as raw, daemon.client() as client:
        found = raw.reply_to(asked(raw, submission))["tasks"][0]
        assert client.handle(int(found["id"])).result(30) == 0
        assert done(client) == 2

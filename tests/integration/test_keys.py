"""Keys with a real daemon: joined ones are told apart, a second waits behind the one that runs, a
key is kept for a period; over a deploy and a kill of the master."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from support.daemon import Daemon

from taskd.errors import KeyConflict, Refused

APP = """
from taskd import task
from side import is_open, mark
import time

@task
def build(ctx, n: int) -> str:
    mark(f"begin{n}")
    while not is_open(f"end{n}"):
        ctx.checkpoint()
        time.sleep(0.005)
    return str(n) + " " + "REVISION"
"""


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    return new_daemon().with_releases(APP, "r1", "r2").start()


def test_the_change_that_comes_while_a_task_runs_is_not_lost(daemon: Daemon) -> None:
    with daemon.client() as client:
        first = client.submit("build", {"n": 1}, key="site")
        daemon.reached(first.id, "begin1")
        how = {"key": "site", "if_exists": "replace-waiting"}
        second = client.submit("build", {"n": 2}, **how)
        assert (first.created, second.created, second.replaced) == (True, True, False)
        info = second.status()
        assert (info.state, info.key, info.run_at) == ("scheduled", "site", None)
        assert "waits until the task is over that has its key ('site')" in str(info.reason)
        daemon.reload("r2")
        third = client.submit("build", {"n": 3}, **how)
        assert (third.id, third.created, third.replaced) == (second.id, False, True)
        daemon.kill()
        daemon.start()
        with pytest.raises(KeyConflict, match="if_exists"):
            client.submit("build", {"n": 1}, key="site", if_exists="refuse")
        joined = client.submit("build", {"n": 1}, key="site")
        assert (joined.id, joined.created) == (first.id, False)
        daemon.open_gate("end3")
        events = client.follow([second.id])
        assert next(events)["state"] == "scheduled"
        daemon.open_gate("end1")
        assert [each["state"] for each in events] == ["queued", "running", "succeeded"]
        assert (first.result(30), second.result(30)) == ("1 r1", "3 r2")
        assert daemon.items(second.id) == ["begin3"]


def test_one_behind_a_task_is_let_go_by_a_cancel_and_by_its_own_time(daemon: Daemon) -> None:
    daemon.open_gate("end2")
    with daemon.client() as client:
        for delay in (None, 0.3):
            first = client.submit("build", {"n": 1}, key="site")
            daemon.reached(first.id, "begin1")
            how = {"key": "site", "if_exists": "replace-waiting", "delay": delay}
            second = client.submit("build", {"n": 2}, **how)
            first.cancel()
            assert second.result(30) == "2 r1"


def test_a_key_is_kept_for_a_period_and_the_command_line_says_what_it_has_found(
    daemon: Daemon,
) -> None:
    daemon.open_gate("end1")
    words = ("submit", "--key", "day", "--key-for", "1d", "build", "n=1")
    task = int(daemon.said(*words))
    with daemon.client() as client:
        assert client.handle(task).result(30) == "1 r1"
        daemon.kill()
        daemon.start()
        again = daemon.taskctl(*words)
        assert (again.returncode, again.stdout) == (0, f"{task}\n")
        assert f"{task} was there already, with this key" in again.stderr
        told = json.loads(daemon.said("submit", "--json", *words[1:]))
        assert (told["id"], told["created"], told["state"]) == (str(task), False, "succeeded")
        assert client.remove([task]) == {"removed": [task]}
        told = json.loads(daemon.said("submit", "--json", *words[1:]))
        assert (told["id"], told["created"], told["state"]) == (str(task), False, "removed")
        assert json.loads(daemon.said("submit", "--json", "build", "n=1"))["created"]
        for how, why in (
            ({"key_for": "1d"}, "key_for without a key"),
            ({"if_exists": "replace"}, "if_exists must be one of join, refuse, replace-waiting"),
            ({"key": "a", "at_most": 5}, "it needs both"),
            ({"key": "a", "key_for": 5, "if_exists": "replace-waiting"}, "say one of them"),
        ):
            with pytest.raises(Refused, match=why):
                client.submit("build", {"n": 1}, **how)


def test_a_named_submission_is_one_task_also_once_that_was_removed(daemon: Daemon) -> None:
    daemon.open_gate("end1")
    with daemon.client() as client:
        first = client.submit("build", {"n": 1}, named="message 17")
        assert first.result(30) == "1 r1"
        daemon.reload("r2")
        again = client.submit("build", {"n": 1}, named="message 17")
        assert (again.id, again.created) == (first.id, False)
        client.remove([first.id])
        daemon.kill()
        daemon.start()
        again = client.submit("build", {"n": 1}, named="message 17")
        assert (again.id, again.created) == (first.id, False)
        assert client.submit("build", {"n": 1}, named="message 18").result(30) == "1 r2"
        assert [task.id for task in client.tasks()] == [first.id + 1]

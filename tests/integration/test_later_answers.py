"""The daemon does not rely on the store's answering at once, or in order (``support/later``).

A whole folder: `TASKD_TEST_LATER=1 python -m pytest tests/integration`. Here some tests of several
folders run that way, and what only shows if an answer is late.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from support.daemon import LATER, Daemon
from support.raw import Raw
from support.waiting import eventually

from taskd.errors import Refused, UnknownTask

TESTS = os.path.dirname(os.path.dirname(__file__))

SOME = (
    "integration/test_waiting_in_tasks.py",
    "integration/test_listing.py",
    "integration/test_scheduling.py::test_a_queue_runs_as_many_at_once_as_it_may_and_never_more",
    "upgrade/test_accepted.py",
    "crash/test_adoption.py",
)

APP = """
import side, taskd

@taskd.task
def work(what):
    side.gate(what)
    return what
"""


@pytest.mark.timeout(900)  # of one test; these are some forty
def test_tests_of_several_folders_pass_while_answers_are_late() -> None:
    given = os.environ | {"TASKD_TEST_LATER": "1"}
    words = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider"]
    files = [os.path.join(TESTS, name) for name in SOME]
    done = subprocess.run(
        [*words, *files], cwd=os.path.dirname(TESTS), env=given, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-20_000:]


def late(new_daemon: Callable[..., Daemon]) -> Daemon:
    daemon: Daemon = new_daemon(queues={"default": {"concurrency": 2}})
    daemon.extra["PYTHONPATH"] = LATER
    return daemon.with_releases(APP, "r1", "r2").start()


def images(daemon: Daemon) -> int:
    """How many processes have put answers off."""
    return daemon.log().count("the store answers later")


def state(raw: Raw, task: int) -> str:
    return str(raw.ask("show", task=task)["task"]["state"])


def test_an_old_revision_goes_once_its_task_has_ended(new_daemon: Callable[..., Daemon]) -> None:
    daemon = late(new_daemon)
    with daemon.raw() as raw:
        tasks = [raw.submit("work", what=name) for name in ("first", "second", "third")]
        eventually(lambda: state(raw, tasks[0]) == "running", "it runs")
        daemon.reload("r2")
        assert images(daemon) > 1
        for name in ("first", "second", "third"):
            daemon.open_gate(name)
        waiting = raw.start("wait", tasks=tasks)
        raw.reply_to(waiting)
        settled = raw.items(waiting)
        assert sorted(item["task"]["id"] for item in settled) == tasks
        one = lambda: len(raw.ask("revisions")["revisions"]) == 1  # noqa: E731
        eventually(one, "the old revision is gone")


def test_requests_of_one_client_are_answered_in_order(new_daemon: Callable[..., Daemon]) -> None:
    daemon = late(new_daemon)
    with daemon.raw() as raw:
        task, other = (raw.submit("work", what="never") for _ in range(2))
        asked = [raw.start("cancel", task=other), raw.start("show", task=other)]
        asked += [raw.start("list"), raw.start("follow", tasks=[other]), raw.start("status")]
        answers = [raw.reply_to(number) for number in asked]
        assert answers[1]["task"]["state"] in ("running", "cancelled")
        assert [each["id"] for each in answers[2]["tasks"]] == [other, task]
        assert raw.items(asked[3])[-1]["state"] == "cancelled"
        with pytest.raises(UnknownTask):
            raw.ask("follow", tasks=[task, 99])
    daemon.open_gate("never")


def told(events: Iterable[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Without the tokens, which say how much of all tasks a stream has told."""
    return [(event["event"], event["state"], event["attempt"]) for event in events]


def test_a_stream_over_several_writers_tells_all_over_deploys_and_a_crash(
    new_daemon: Callable[..., Daemon],
) -> None:
    """The client goes on by the store's token when its connection is lost."""
    daemon = late(new_daemon)
    with daemon.client() as client:
        tasks = [client.submit("work", {"what": f"gate-{n}"}).id for n in range(8)]
        seen: list[dict[str, Any]] = []
        following = threading.Thread(target=lambda: seen.extend(client.follow(tasks)))
        following.start()
        for n in range(8):
            if n == 3:
                daemon.reload("r2")
            if n == 5:
                daemon.kill()
                daemon.start()
            daemon.open_gate(f"gate-{n}")
        following.join(60)
        assert not following.is_alive()
        for task in tasks:
            own = list(client.follow([task]))
            assert own[-1]["state"] == "succeeded"
            assert told(e for e in seen if e["task"] == task) == told(own)
            assert told(client.follow([task], after=own[0])) == told(own[1:])
        assert "+" in seen[-1]["token"], "several writers told it"
        with pytest.raises(Refused, match="the token is none of this daemon's"):
            next(client.follow(tasks, after=seen[-1] | {"token": "17+"}))


def test_clients_that_hang_up_before_the_answer_harm_nobody(
    new_daemon: Callable[..., Daemon],
) -> None:
    daemon = late(new_daemon)
    with daemon.raw() as raw:
        task = raw.submit("work", what="never")
    for _ in range(20):
        with daemon.raw() as raw:
            raw.start("show", task=task)
            raw.start("follow", tasks=[task], progress=True)
            raw.start("wait", tasks=[task])
            raw.start("revisions")
    with daemon.raw() as raw:
        eventually(lambda: state(raw, task) == "running", "it runs")
    daemon.reload("r2")
    daemon.open_gate("never")

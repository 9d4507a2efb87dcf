"""A task that has got hold of its worker's slot or channel, and says there what cannot be told."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.daemon import Daemon
from support.waiting import eventually

import taskd

APP = """
import taskd
from taskd import task
from taskd.protocol.saved import Kind, Outcome
from taskd.worker import process
from side import gate, mark

MUCH = 5 << 20
ERROR = {"type": "E", "message": "m", "traceback": "t"}
ENDS = {
    "a huge result": {"result": b"\\x5a\\x00\\x50\\x00\\x00" + bytes(MUCH)},
    "no result": {"result": b"\\xff no CBOR"},
    "a huge reason": {"outcome": Outcome.HELD, "reason": "x" * MUCH},
    "a huge message": {"outcome": Outcome.FAILED, "error": ERROR | {"message": "x" * MUCH}},
    "a huge traceback": {"outcome": Outcome.FAILED, "error": ERROR | {"traceback": "x" * MUCH}},
    "more than an error": {"outcome": Outcome.FAILED, "error": ERROR | {"more": "x" * MUCH}},
    "an odd error": {"outcome": Outcome.FAILED, "error": ERROR | {5: "x"}},
}

@task
def quick() -> int:
    return 1

@task
def forges(what: str) -> int:
    honest = process._record
    def record(slot, recorder, order, ending, *more):
        return honest(slot, recorder, order, ending._replace(**ENDS[what]), *more)
    process._record = record
    return 1

@task
def reports(ctx, what: str) -> int:
    gate("go")
    said = {"type": what, "task": int(ctx.id), "attempt": ctx.attempt}
    text = "x" * ((2 << 20) - 90)
    said |= {"message": text} if what == "waiting" else {"done": 1, "total": 2, "note": text}
    ctx._recorder._control._channel.send(said)
    mark("said")
    gate("end")
    return 1

@task
def dies(ctx) -> int:
    ctx._recorder._slot.append(
        Kind.PROGRESS, {"done": 1, "total": 2, "note": "n", "more": "x" * MUCH}
    )
    __import__("os")._exit(1)
"""


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    made = new_daemon()
    return made.with_releases(APP, "r1").start()


HELD = (taskd.TaskHeld, "passes the limit of 1")


@pytest.mark.parametrize(
    ("what", "kind", "words"),
    [
        ("a huge result", taskd.TaskHeld, "must be 0 to 1,048,576 bytes"),
        ("no result", taskd.Error, "not plain data"),
        ("a huge reason", *HELD),
        ("a huge message", *HELD),
        ("a huge traceback", *HELD),
        ("more than an error", taskd.TaskFailed, "E: m"),
        ("an odd error", taskd.TaskFailed, "E: m"),
    ],
)
def test_an_end_that_cannot_be_told_is_its_own_tasks_trouble(
    daemon: Daemon, what: str, kind: type[Exception], words: str
) -> None:
    with daemon.client() as client:
        forged = client.submit("forges", {"what": what})
        with pytest.raises(kind, match=words):
            forged.result(30)
        assert client.submit("quick").result(30) == 1
        assert [task.id for task in client.tasks()] == [2, 1]
        assert client.status()["pid"] == daemon.pid


@pytest.mark.parametrize("what", ["progress", "waiting"])
def test_a_report_that_cannot_be_told_costs_its_worker_the_connection(
    daemon: Daemon, what: str
) -> None:
    with daemon.client() as client:
        task = client.submit("reports", {"what": what})
        events = task.follow(progress=True)
        assert [next(events)["state"] for _ in range(2)] == ["queued", "running"]
        daemon.open_gate("go")
        daemon.reached(task.id, "said")
        eventually(lambda: "adopted" in daemon.log(), "it is cut off, and comes back")
        assert client.task(task.id).state == "running"
        daemon.open_gate("end")
        assert [event.get("state") for event in events] == ["succeeded"]
        assert task.result(30) == 1
        assert client.status()["pid"] == daemon.pid


def test_a_record_of_progress_with_more_in_it_than_that_is_told_without_it(daemon: Daemon) -> None:
    with daemon.client() as client:
        task = client.submit("dies")
        found = task.wait(30)
        assert found.state == "held", found
        assert found.progress == {"done": 1, "total": 2, "note": "n"}
        assert client.status()["pid"] == daemon.pid

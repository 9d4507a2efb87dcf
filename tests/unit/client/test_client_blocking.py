"""``Client`` over a real socket, against a small daemon that can drop connections anywhere.

Longer than 400 lines because one daemon fixture carries every way a connection can be lost.
"""

from __future__ import annotations

import os
import pathlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from client_daemon import Daemon

from taskd import Client
from taskd.errors import (
    BadArguments,
    Error,
    NoDaemon,
    NotPlainData,
    ProtocolError,
    Refused,
    TaskCancelled,
    TaskFailed,
    TaskHeld,
    UnknownTask,
)
from taskd.posix.sockets import listen
from taskd.protocol import data, frames


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    with Client(daemon.path) as made:
        yield made


def in_background(work: Callable[[], Any]) -> Callable[[], Any]:
    """Start ``work``; calling what is returned waits for it and gives its result."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def result() -> Any:
        thread.join(60)
        assert found, "it still runs"
        if isinstance(found[0], BaseException):
            raise found[0]
        return found[0]

    return result


def test_a_task_is_submitted_with_all_that_was_said(daemon: Daemon, client: Client) -> None:
    task = client.submit("known", {"rows": (1, {2})}, key="k", priority=5, queue="q", delay=1)
    found = daemon.tasks[task.id]
    assert data.decode(found["args"]) == {"rows": (1, {2})}
    assert (found["key"], found["priority"], found["queue"]) == ("k", 5, "q")
    info = task.status()
    assert (info.id, info.name, info.state, info.queue) == (task.id, "known", "queued", "q")
    assert repr(task) == f"<task {task.id}>"


def test_a_refusal_is_raised_as_its_kind(client: Client) -> None:
    with pytest.raises(UnknownTask, match="did you mean 'known'"):
        client.submit("unknown", {})
    with pytest.raises(UnknownTask, match="no task 99"):
        client.task(99)


@pytest.mark.parametrize(
    ("args", "kind", "text"),
    [
        ({"rows": [1, object()]}, NotPlainData, r'args\["rows"\]\[1\] is of type object'),
        ({"big": b"x" * data.ARGUMENTS_LIMIT}, NotPlainData, "args takes 1,048,5.. bytes"),
        ([1], BadArguments, "dict of the task's arguments by their names, not list"),
        ({1: 2}, BadArguments, "must be a str, not 1"),
    ],
)
def test_arguments_are_checked_before_anything_is_sent(
    daemon: Daemon, client: Client, args: Any, kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        client.submit("known", args)
    assert daemon.connections == 0


def test_what_the_protocol_does_not_allow_is_refused_before_anything_is_sent(
    daemon: Daemon, client: Client
) -> None:
    for attempt, text in [
        (lambda: client.submit("known", priority="high"), "priority must be an int .*, not str"),
        (lambda: client.submit("", {}), "name must be text of 1 to 200"),
        (lambda: client.submit("known", key=""), "key must be text"),
        (lambda: client.submit("known", delay=-1), "delay must be a number"),
        (lambda: client.task(0), "task must be an int from 1"),
        (lambda: client.tasks(state="gone"), "state must be one of"),
        (lambda: client.follow([1], after=-1), "after must be an int"),
        (lambda: client.wait(["1"]), r"tasks\[0\] must be an int"),
    ]:
        with pytest.raises(Refused, match=text):
            attempt()
    assert daemon.connections == 0


def test_every_operation_has_its_answer(daemon: Daemon, client: Client) -> None:
    task = client.submit("known").id
    assert client.status()["pid"] == os.getpid()
    assert client.revisions() == [{"revision": "r1"}]
    assert client.reload() == {"revision": "r2", "previous": "r1", "pause": 0.1}
    assert client.reload("r9")["revision"] == "r9"
    assert client.log(task) == {"data": b"one\ntwo\n", "offset": 8, "size": 8, "ended": False}
    assert client.log(task, 4)["data"] == b"two\n"
    assert client.cancel(task) == {"state": "cancelled", "was": "queued"}
    assert client.retry(task) == {"state": "queued"}
    assert client.handle(task).cancel() == {"state": "cancelled", "was": "queued"}
    assert client.handle(task).retry() == {"state": "queued"}


def test_a_list_is_read_page_by_page(client: Client) -> None:
    ids = [client.submit("known").id for _ in range(8)]
    assert [task.id for task in client.tasks()] == ids[::-1]
    assert [task.id for task in client.tasks(limit=5)] == ids[:2:-1]
    assert [task.id for task in client.tasks(limit=5, before=ids[2])] == ids[1::-1]
    assert client.tasks(limit=0) == []


def test_the_ends_of_tasks_are_results_or_errors(daemon: Daemon, client: Client) -> None:
    done, failed, held, cancelled = (client.submit("known") for _ in range(4))
    daemon.move(done.id, "succeeded", (1, 2))
    daemon.move(failed.id, "failed", error={"type": "ValueError", "message": "bad"})
    daemon.move(held.id, "held", reason="no such name any more")
    daemon.move(cancelled.id, "cancelled")
    assert done.result() == (1, 2)
    with pytest.raises(TaskFailed, match="ValueError: bad"):
        failed.result()
    with pytest.raises(TaskHeld, match="no such name any more"):
        held.result()
    with pytest.raises(TaskCancelled):
        cancelled.result()
    assert held.wait().state == "held"


def test_wait_gives_all_in_the_order_asked_for(daemon: Daemon, client: Client) -> None:
    ids = [client.submit("known").id for _ in range(3)]
    waiting = in_background(lambda: client.wait([ids[2], ids[0], ids[1], ids[0]]))
    for task in ids:
        daemon.move(task, "succeeded")
    assert [task.id for task in waiting()] == [ids[2], ids[0], ids[1], ids[0]]
    assert client.wait([]) == []


def test_waiting_too_long_names_the_tasks_and_leaves_them_alone(
    daemon: Daemon, client: Client
) -> None:
    done, running = client.submit("known"), client.submit("known")
    daemon.move(done.id, "succeeded")
    for timeout in (0.05, 0, -1):
        with pytest.raises(TimeoutError, match=f"going on: task .*{running.id}"):
            client.wait([done.id, running.id], timeout)
        with pytest.raises(TimeoutError):
            running.result(timeout)
    assert running.status().state == "queued"
    assert done.result(0) is None


def test_to_wait_for_an_unknown_task_is_refused(client: Client) -> None:
    with pytest.raises(UnknownTask):
        client.wait([99])
    with pytest.raises(UnknownTask):
        next(iter(client.follow([99])))


def test_follow_tells_every_event_and_progress_where_wanted(daemon: Daemon, client: Client) -> None:
    task = client.submit("known")
    following = in_background(lambda: list(task.follow(progress=True)))
    daemon.move(task.id, "running", attempt=1, revision="r1")
    daemon.report(task.id, 5, 9)
    for item in client.follow([task.id], progress=True):
        if "progress" in item:
            break  # the report has been told
    daemon.move(task.id, "succeeded")
    events = [item for item in following() if "event" in item]
    assert [event["state"] for event in events] == ["queued", "running", "succeeded"]
    assert list(task.follow()) == events
    assert list(task.follow(after=events[1]["event"])) == events[2:]


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("op", ["submit", "show", "list", "status", "revisions", "log", "cancel"])
def test_a_request_whose_answer_is_lost_is_sent_again(
    daemon: Daemon, client: Client, op: str, times: int
) -> None:
    task = client.submit("known").id
    daemon.seen.clear()
    daemon.hang_up_before_reply[op] = times
    asks: dict[str, Callable[[], Any]] = {
        "submit": lambda: client.submit("known"),
        "show": lambda: client.task(task),
        "list": lambda: client.tasks(limit=1),
        "status": client.status,
        "revisions": client.revisions,
        "log": lambda: client.log(task),
        "cancel": lambda: client.cancel(task),
    }
    asks[op]()
    assert daemon.requests == {op: times + 1}
    assert len(daemon.tasks) == (2 if op == "submit" else 1)  # sent again, it is the same task


def test_a_retry_whose_answer_is_lost_is_not_mistaken_for_a_refusal(
    daemon: Daemon, client: Client
) -> None:
    task = client.submit("known").id
    daemon.move(task, "failed")
    daemon.hang_up_before_reply["retry"] = 1
    assert client.retry(task) == {"state": "queued"}
    with pytest.raises(Refused, match="is queued"):
        client.retry(task)


def test_a_refused_retry_stays_refused_when_its_answer_is_lost(
    daemon: Daemon, client: Client
) -> None:
    task = client.submit("known").id
    daemon.move(task, "succeeded")
    daemon.hang_up_before_reply["retry"] = 1
    with pytest.raises(Refused, match="was not queued again: it is succeeded"):
        client.retry(task)


def test_a_reload_whose_answer_is_lost_is_not_asked_for_twice(
    daemon: Daemon, client: Client
) -> None:
    daemon.hang_up_before_reply["reload"] = 1
    with pytest.raises(Error, match=r"before the daemon told.*taskctl status"):
        client.reload()
    assert daemon.requests["reload"] == 1


def test_follow_and_wait_ride_over_lost_connections(daemon: Daemon, client: Client) -> None:
    task = client.submit("known")
    other = client.submit("known")
    following = in_background(lambda: list(client.follow([task.id, other.id])))
    waiting = in_background(lambda: client.wait([task.id, other.id]))
    states = ["running", "queued", "running", "scheduled", "queued", "running", "succeeded"]
    daemon.hang_up_after_items = 3
    for count, state in enumerate(states):
        daemon.move(task.id, state)
        if count % 2:
            daemon.hang_up()
    daemon.move(other.id, "cancelled")
    assert [info.state for info in waiting()] == ["succeeded", "cancelled"]
    events = following()
    assert [event["event"] for event in events] == [event["event"] for event in daemon.events]


def test_a_daemon_that_was_away_is_found_again(daemon: Daemon, client: Client) -> None:
    task = client.submit("known")
    following = in_background(lambda: list(task.follow()))
    next(iter(client.follow([task.id])))
    daemon.stop()
    asking = in_background(lambda: client.task(task.id).state)
    daemon.start()
    daemon.move(task.id, "succeeded")
    assert asking() in ("queued", "succeeded")
    assert [event["state"] for event in following()] == ["queued", "succeeded"]


def test_a_daemon_that_was_never_there_is_reported_at_once(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "control.sock")
    with Client(path, timeout=3600) as client, pytest.raises(NoDaemon, match="does not exist"):
        client.status()
    listen(path).close()
    for ask in (client.status, lambda: client.wait([1]), client.reload):
        with pytest.raises(NoDaemon, match=f"{path}: no process listens on it"):
            ask()


def test_a_daemon_that_stays_away_is_given_up_after_the_timeout(daemon: Daemon) -> None:
    with Client(daemon.path, timeout=2) as client:
        client.status()
        daemon.stop()
        with pytest.raises(NoDaemon, match="no process listens on it"):
            client.status()
        with pytest.raises(NoDaemon, match="no process listens on it"):
            client.wait([1])


def test_a_waiting_that_is_over_while_the_daemon_is_away_is_a_timeout(daemon: Daemon) -> None:
    with Client(daemon.path, timeout=3600) as client:
        task = client.submit("known")
        daemon.stop()
        with pytest.raises(TimeoutError):
            task.wait(0.1)


def test_a_daemon_that_does_not_answer_is_given_up_after_the_timeout(daemon: Daemon) -> None:
    daemon.silent.add("status")
    with (
        Client(daemon.path, timeout=0.1) as client,
        pytest.raises(NoDaemon, match="did not answer within"),
    ):
        client.status()


def test_a_daemon_that_always_hangs_up_is_given_up_after_the_timeout(daemon: Daemon) -> None:
    daemon.hang_up_before_reply["status"] = 10**9
    with Client(daemon.path, timeout=2) as client:
        with pytest.raises(NoDaemon):
            client.status()
        daemon.hang_up_before_reply.clear()
        assert client.status()["pid"] == os.getpid()


def test_a_daemon_that_says_goodbye_is_believed(daemon: Daemon, client: Client) -> None:
    daemon.goodbye = Refused("too many connections")
    with pytest.raises(Refused, match="too many connections"):
        client.status()


@pytest.mark.parametrize(
    "raw",
    [b"\0\0\0\0", b"\xff\xff\xff\xff", frames.encode({"id": 7, "ok": {}}), frames.encode({"x": 1})],
)
def test_a_daemon_that_breaks_the_protocol_is_left_and_the_next_request_is_fine(
    daemon: Daemon, client: Client, raw: bytes
) -> None:
    client.status()
    daemon.poison = raw
    with pytest.raises(ProtocolError):
        client.status()
    daemon.poison = None
    assert client.status()["pid"] == os.getpid()


def test_requests_of_many_threads_share_one_connection(daemon: Daemon, client: Client) -> None:
    client.status()
    workers = [
        in_background(lambda: [client.submit("known").id for _ in range(25)]) for _ in range(8)
    ]
    ids = [task for worker in workers for task in worker()]
    assert sorted(ids) == list(range(1, 201))
    assert daemon.connections == 1


def test_one_thread_that_waits_does_not_hold_up_the_others(daemon: Daemon, client: Client) -> None:
    task = client.submit("known")
    waiting = in_background(task.result)
    while not daemon.requests["wait"]:
        client.status()
    daemon.move(task.id, "succeeded", 5)
    assert waiting() == 5


def test_a_follow_that_is_left_closes_its_connection(daemon: Daemon, client: Client) -> None:
    task = client.submit("known")
    stream = client.follow([task.id])
    next(stream)
    assert len(daemon.open) == 2
    stream.close()  # type: ignore[attr-defined]
    while len(daemon.open) > 1:
        client.status()


def test_after_a_fork_the_child_has_a_connection_of_its_own(daemon: Daemon, client: Client) -> None:
    task = client.submit("known")
    stream = client.follow([task.id])
    first = next(stream)
    child = os.fork()
    if child == 0:  # pragma: no cover - in the child
        status = 1
        try:
            client._lock.acquire()  # as if another thread of the parent had held it
            assert client.submit("known").id == task.id + 1
            daemon_says = [event["event"] for event in stream]
            assert first["event"] not in daemon_says
            assert len(daemon_says) == 1
            status = 0
        finally:
            os._exit(status)
    while len(daemon.tasks) < 2 or daemon.requests["follow"] < 2:
        assert client.task(task.id).state == "queued"  # the parent's connection is whole
    daemon.move(task.id, "succeeded")
    assert [event["state"] for event in stream] == ["succeeded"]
    assert os.waitpid(child, 0)[1] == 0


def test_a_closed_client_makes_a_new_connection_when_used(daemon: Daemon, client: Client) -> None:
    client.status()
    client.close()
    client.close()
    client.status()
    assert daemon.connections == 2


def test_the_socket_may_come_from_the_environment_as_a_directory(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKD_SOCKET", os.path.dirname(daemon.path))
    with Client() as client:
        assert client.status()["pid"] == os.getpid()

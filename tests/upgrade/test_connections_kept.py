"""Connections over an exec: established ones stay, with bytes unread, unsent and half sent."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

import pytest
from support.daemon import Daemon
from support.raw import Raw
from support.waiting import eventually

from taskd.protocol import data
from taskd.protocol.client_side import Reply
from taskd.protocol.control import NEWEST, OLDEST

APP = """
from taskd import task
from side import gate

@task
def keep(text: str) -> str:
    return text

@task
def waits(n: int) -> int:
    gate("go")
    return n
"""

SIZE = 900_000
"""Bytes of an argument: more than a socket's buffer holds."""


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    made = new_daemon()
    return made.with_releases(APP, "r1", "r2").start()


def submission(text: str) -> dict[str, object]:
    args = data.encode({"text": text})
    return {"submission": b"0123456789abcdef", "name": "keep", "args": args}


@pytest.mark.parametrize("sent", [1, 3, 4, 5, 30, 70_000])
def test_a_request_that_was_half_sent_is_answered_after_the_exec(daemon: Daemon, sent: int) -> None:
    with daemon.raw() as raw:
        number, whole = raw._side.request("submit", {"tasks": [submission("x" * 100_000)]})
        raw.send(whole[:sent])
        daemon.reload("r2")
        raw.send(whole[sent:])
        task = raw.reply_to(number)["tasks"][0]["id"]
    assert daemon.client().handle(task).result(30) == "x" * 100_000


def test_replies_that_were_not_read_yet_come_after_the_exec(daemon: Daemon) -> None:
    task = daemon.client().submit("keep", {"text": "y" * SIZE})
    task.result(30)
    with daemon.raw() as raw:
        asked = [raw.start("show", task=task.id) for _ in range(10)]
        daemon.reload("r2")
        for number in asked:
            assert data.decode(raw.reply_to(number)["task"]["result"]) == "y" * SIZE


def test_a_client_that_reads_nothing_does_not_hold_a_deploy_up(daemon: Daemon) -> None:
    task = daemon.client().submit("keep", {"text": "y" * SIZE})
    task.result(30)
    with daemon.raw() as raw:
        for _ in range(40):  # far more than a socket takes that nobody reads
            raw.start("show", task=task.id)
        for name in ("r2", "r1", "r2"):
            assert daemon.reload(name)["revision"] == name


def test_a_stream_goes_on_over_deploys_on_its_own_connection(daemon: Daemon) -> None:
    with daemon.raw() as raw:
        task = raw.submit("waits", n=5)
        follow, wait = raw.start("follow", tasks=[task]), raw.start("wait", tasks=[task])
        assert raw.reply_to(follow) == raw.reply_to(wait) == {}
        for name in ("r2", "r1"):
            daemon.reload(name)
        daemon.open_gate("go")
        events = raw.items(follow)
        settled = raw.items(wait)
    assert [e["state"] for e in events if "event" in e] == ["queued", "running", "succeeded"]
    assert [each["task"]["state"] for each in settled] == ["succeeded"]


def test_a_connection_that_has_said_nothing_yet_may_still_say_hello(daemon: Daemon) -> None:
    import taskd.posix.sockets as sockets
    from taskd.protocol import frames

    sock = sockets.connect(daemon.control, timeout=30)
    daemon.reload("r2")
    sock.sendall(frames.encode({"hello": {"low": OLDEST, "high": NEWEST}}))
    assert b"hello" in sock.recv(4096)
    sock.close()


def test_nobody_is_refused_while_deploys_go_on(daemon: Daemon) -> None:
    """Connections that come at any moment of a deploy wait in the backlog and are answered."""
    over, failures, count = threading.Event(), [], [0]

    def knock() -> None:
        while not over.is_set():
            try:
                with daemon.raw() as raw:
                    raw.ask("status")
                count[0] += 1
            except Exception as error:
                failures.append(error)

    knockers = [threading.Thread(target=knock, daemon=True) for _ in range(4)]
    for each in knockers:
        each.start()
    for name in ("r2", "r1", "r2", "r1"):
        daemon.reload(name)
    over.set()
    for each in knockers:
        each.join(30)
    assert failures == []
    assert count[0] > 0


def test_refused_deploys_leave_no_descriptor_behind(daemon: Daemon) -> None:
    daemon.release("bad", "import nowhere_to_be_found")
    eventually(lambda: daemon.descriptors()["socket"] == 4, "three listeners and the zygote's")
    before = daemon.descriptors()
    for _ in range(8):
        with daemon.raw() as raw, pytest.raises(Exception, match="nowhere"):
            raw.ask("reload", release=daemon.path("releases", "bad"))
    eventually(lambda: daemon.descriptors() == before, "the same descriptors as before")


def test_a_stop_that_comes_during_a_deploy_is_obeyed(daemon: Daemon) -> None:
    raw = Raw(daemon.control)
    raw.start("reload", release=daemon.path("releases", "r2"))
    eventually(lambda: "r2" in daemon.zygotes(), "the deploy is under way")
    daemon.kill(signal.SIGTERM)
    assert daemon.process is not None
    assert daemon.process.wait(30) == 0
    raw.close()
    daemon.start()


def test_pipelined_requests_around_a_reload_are_answered_in_order(daemon: Daemon) -> None:
    with daemon.raw() as raw:
        numbers = [raw.start("status"), raw.start("reload", release=daemon.path("releases", "r2"))]
        numbers += [raw.start("status") for _ in range(20)]
        replies = []
        while len(replies) < len(numbers):
            event = raw.event()
            assert isinstance(event, Reply), event
            replies.append(event)
    assert [each.id for each in replies] == numbers
    assert replies[0].ok["revision"] == "r1"
    assert replies[-1].ok["pid"] == daemon.pid

"""Who may connect, what they see, and that a peer that breaks the protocol harms itself alone."""

from __future__ import annotations

import grp
import os
import socket
import stat
import struct
import threading
from collections.abc import Callable
from typing import Any

import pytest
from support.daemon import Daemon
from support.raw import Raw
from support.users import OTHER, STRANGER, as_user
from support.waiting import eventually

import taskd
from taskd.errors import NotAllowed
from taskd.posix import sockets
from taskd.protocol import data, frames
from taskd.protocol.control import NEWEST, OLDEST

APP = """
from taskd import task
from side import gate

@task
def waits(n: int) -> int:
    gate("go")
    return n

@task
def echo(text: str) -> str:
    return text
"""

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")

HELLO = frames.encode({"hello": {"low": OLDEST, "high": NEWEST}})


@pytest.fixture
def group() -> str:
    """A group that exists here; its members may submit."""
    return next(each.gr_name for each in grp.getgrall() if each.gr_gid not in (0, os.getgid()))


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon], group: str) -> Daemon:
    made = new_daemon(access={"submit_groups": [group]}, queues={"default": {"concurrency": 9}})
    return made.with_releases(APP, "r1", "r2").start()


# ── who may do what ──────────────────────────────────────────────────────────────────────────


def mode(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def test_sockets_are_open_only_to_those_who_may_use_them(
    new_daemon: Callable[..., Daemon], daemon: Daemon
) -> None:
    assert mode(daemon.path("run", "control.sock")) == 0o600
    assert mode(daemon.path("run", "worker.sock")) == 0o600
    assert mode(daemon.path("run", "submit.sock")) == 0o666
    closed = new_daemon()
    closed.with_releases(APP, "r1").start()
    assert mode(closed.path("run", "submit.sock")) == 0o600
    assert mode(closed.path("state", "store.db")) == 0o600


@needs_root
def test_members_of_the_submit_groups_see_and_change_their_own_tasks_alone(
    daemon: Daemon, group: str
) -> None:
    gid = grp.getgrnam(group).gr_gid
    mine = daemon.client().submit("waits", {"n": 1})

    def theirs() -> dict[str, Any]:
        with Raw(daemon.submit_socket) as raw:
            task = raw.submit("waits", n=2)
            found: dict[str, Any] = {
                "uid": raw.welcome.uid,
                "control": raw.welcome.control,
                "task": task,
                "listed": [each["id"] for each in raw.ask("list")["tasks"]],
                "shown": raw.ask("show", task=task)["task"]["owner"],
                "refused": {},
            }
            for op, fields in (
                ("show", {"task": mine.id}),
                ("log", {"task": mine.id}),
                ("cancel", {"task": mine.id}),
                ("retry", {"task": mine.id}),
                ("wait", {"tasks": [task, mine.id]}),
                ("follow", {"tasks": [mine.id]}),
                ("reload", {}),
            ):
                try:
                    raw.ask(op, **fields)
                except taskd.Error as error:
                    found["refused"][op] = (error.code, str(error))
            return found

    found = as_user(STRANGER, [gid], theirs)
    assert (found["uid"], found["control"], found["shown"]) == (STRANGER, False, STRANGER)
    assert found["listed"] == [found["task"]]
    unknown = ("unknown-task", f"no task {mine.id}")
    assert found["refused"].pop("reload")[0] == "not-allowed"
    assert found["refused"] == dict.fromkeys(
        ["show", "log", "cancel", "retry", "wait", "follow"], unknown
    )
    handle = daemon.client().handle(found["task"])
    eventually(lambda: handle.status().state == "running", "it runs")
    cancelled = as_user(STRANGER, [gid], lambda: ask(daemon, "cancel", task=found["task"]))
    assert cancelled["state"] == "running"
    with pytest.raises(taskd.UnknownTask):
        as_user(OTHER, [gid], lambda: ask(daemon, "show", task=found["task"]))
    assert {each.id for each in daemon.client().tasks()} == {mine.id, found["task"]}
    daemon.open_gate("go")
    assert mine.result(30) == 1


def ask(daemon: Daemon, op: str, **fields: Any) -> dict[str, Any]:
    with Raw(daemon.submit_socket) as raw:
        return raw.ask(op, **fields)


@needs_root
def test_a_submitter_may_not_run_programs(daemon: Daemon, group: str) -> None:
    def run() -> int:
        with Raw(daemon.submit_socket) as raw:
            return raw.submit("command", argv=["id"])

    with pytest.raises(NotAllowed, match="service's user"):
        as_user(STRANGER, [grp.getgrnam(group).gr_gid], run)


@needs_root
def test_keys_and_submission_ids_of_two_users_do_not_meet(daemon: Daemon, group: str) -> None:
    def submit(submission: bytes) -> Any:
        task = {"submission": submission, "name": "waits", "args": data.encode({"n": 1}),
                "key": "k"}  # fmt: skip
        return ask(daemon, "submit", tasks=[task])["tasks"][0]["id"]

    gid = grp.getgrnam(group).gr_gid
    ours, known = submit(os.urandom(16)), os.urandom(16)
    theirs = as_user(STRANGER, [gid], lambda: submit(known))
    assert theirs != ours
    assert as_user(STRANGER, [gid], lambda: submit(known)) == theirs
    with pytest.raises(taskd.Refused, match="another user's"):
        as_user(OTHER, [gid], lambda: submit(known))
    daemon.open_gate("go")


@needs_root
def test_a_user_in_no_group_is_turned_away(daemon: Daemon) -> None:
    with pytest.raises(NotAllowed):
        as_user(STRANGER, [], lambda: ask(daemon, "status"))
    with pytest.raises(NotAllowed):
        as_user(STRANGER, [], lambda: taskd.Client(daemon.submit_socket).status())
    with pytest.raises(AssertionError, match="PermissionError"):
        as_user(STRANGER, [], lambda: Raw(daemon.control))
    with pytest.raises(AssertionError, match="PermissionError"):
        as_user(STRANGER, [], lambda: sockets.connect(daemon.path("run", "worker.sock")))


# ── peers that break the protocol ────────────────────────────────────────────────────────────


def frame(body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + body


BREACHES = {
    "no frame": b"GET / HTTP/1.1\r\nHost: taskd\r\n\r\n",
    "a frame of nothing": frame(b""),
    "a frame of 4 GiB": b"\xff\xff\xff\xff",
    "a frame over the limit": struct.pack(">I", frames.LIMIT + 1),
    "no hello first": frames.encode({"id": 1, "op": "status"}),
    "two hellos": HELLO + HELLO,
    "no map": frame(b"\x01"),
    "no CBOR": frame(b"\xff\xff\xff"),
    "a tag": frame(b"\xa1\x65hello\xc1\x00"),
    "deep nesting": frame(b"\x81" * 100_000 + b"\x00"),
    "an endless string": frame(b"\xa1\x65hello\x5f"),
    "a version from the future": frames.encode({"hello": {"low": 99, "high": 99}}),
    "a field of a wrong type": HELLO + frames.encode({"id": 1, "op": "show", "task": "x"}),
    "ids that jump": HELLO + frames.encode({"id": 7, "op": "status"}),
    "a huge number": HELLO + frames.encode({"id": 1, "op": "show", "task": 2**63}),
    "arguments cut off": HELLO
    + frames.encode({"id": 1, "op": "submit", "tasks": [{"submission": b"x"}]}),
}


@pytest.mark.parametrize("breach", sorted(BREACHES))
def test_a_breach_ends_that_connection_and_no_other(daemon: Daemon, breach: str) -> None:
    with daemon.raw() as raw:
        task = raw.submit("waits", n=3)
        follow = raw.start("follow", tasks=[task])
        raw.reply_to(follow)
        for path in (daemon.control, daemon.submit_socket, daemon.path("run", "worker.sock")):
            send_and_wait_for_the_end(path, BREACHES[breach])
        assert raw.ask("status")["pid"] == daemon.pid
        daemon.open_gate("go")
        states = [item["state"] for item in raw.items(follow)]
        assert states == ["queued", "running", "succeeded"]


def send_and_wait_for_the_end(path: str, sent: bytes) -> None:
    sock = sockets.connect(path, timeout=30)
    try:
        sock.sendall(sent)
        while sock.recv(65536):  # a farewell, maybe; then the end
            pass
    except (BrokenPipeError, ConnectionResetError):
        pass
    finally:
        sock.close()


def test_arguments_that_are_no_plain_data_are_refused_without_being_built(
    daemon: Daemon,
) -> None:
    """Tag 35 is a regular expression in CBOR: a decoder that knew it would compile it."""
    with daemon.raw() as raw:
        for args in (b"\xa1\x61x\xd8\x23\x63a+b", b"\xff", b"", b"\xa1\x01\x02", b"\x80"):
            if not args:
                continue
            task = {"submission": os.urandom(16), "name": "echo", "args": args}
            with pytest.raises(taskd.BadArguments):
                raw.ask("submit", tasks=[task])
        assert raw.ask("list")["tasks"] == []


def test_an_unknown_operation_is_refused_and_the_connection_goes_on(daemon: Daemon) -> None:
    sock = sockets.connect(daemon.control, timeout=30)
    sock.sendall(HELLO + frames.encode({"id": 1, "op": "dance"}))
    sock.sendall(frames.encode({"id": 2, "op": "status", "later": {"versions": "may say more"}}))
    decoder, messages = frames.Decoder(), []
    while len(messages) < 3:
        decoder.feed(sock.recv(65536))
        while (message := decoder.next()) is not None:
            messages.append(message)
    sock.close()
    assert "error" in messages[1]
    assert messages[2]["ok"]["pid"] == daemon.pid


def test_a_stranger_on_worker_sock_learns_and_changes_nothing(daemon: Daemon) -> None:
    task = daemon.client().submit("waits", {"n": 1})
    eventually(lambda: task.status().state == "running", "it runs")
    (slot,) = os.listdir(daemon.path("state", "slots"))
    worker = bytes.fromhex(slot.split(".")[0])
    hello = {"type": "hello", "version": 1, "pid": os.getpid(), "start": 1, "busy": None}
    for claim in (
        {"role": "worker", "id": worker, "slot": slot},
        {"role": "worker", "id": os.urandom(16), "slot": slot},
        {"role": "worker", "id": worker, "slot": "../../../etc/passwd"},
        {"role": "zygote", "id": os.urandom(16)},
        {"role": "king", "id": worker},
        {"role": "zygote", "id": None},
    ):
        send_and_wait_for_the_end(daemon.path("run", "worker.sock"), frames.encode(hello | claim))
    assert task.status().state == "running"
    daemon.open_gate("go")
    assert task.result(30) == 1


def test_clients_that_vanish_in_the_middle_leave_nothing_behind(daemon: Daemon) -> None:
    eventually(lambda: daemon.descriptors()["socket"] == 4, "three listeners and the zygote's")
    task = daemon.client().submit("waits", {"n": 1})
    for count in range(60):
        raw = daemon.raw()
        raw.start("follow", tasks=[task.id], progress=True)
        if count % 3 == 0:
            raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if count % 2:
            raw.send(b"\x00\x00\x01")
        raw.close()
    daemon.open_gate("go")
    assert task.result(30) == 1
    own = 3 + 1 + 1 + 1  # listeners, zygote, worker, and the client that waited
    eventually(lambda: daemon.descriptors()["socket"] == own, "all other connections are gone")


def test_many_clients_at_once_are_all_answered(daemon: Daemon) -> None:
    answers: list[str] = []

    def knock() -> None:
        with daemon.raw() as raw:
            for n in range(5):
                task = raw.submit("echo", text=str(n))
                wait = raw.start("wait", tasks=[task])
                raw.reply_to(wait)
                (item,) = raw.items(wait)
                answers.append(data.decode(item["task"]["result"]))

    threads = [threading.Thread(target=knock) for _ in range(40)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert sorted(answers) == sorted(str(n) for n in range(5) for _ in range(40))

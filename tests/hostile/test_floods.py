"""Peers that send or ask without end, or do nothing at all: they alone are cut off or refused.

What is measured: how much memory the master takes on (VmRSS and its peak, never a time), and that
another client gets a number of answers meanwhile.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from support.daemon import Daemon
from support.raw import Raw
from support.users import OTHER, STRANGER, Beside, gid, groups_here
from support.waiting import eventually

from taskd.errors import Busy
from taskd.master.clients import peer_limits
from taskd.posix import sockets
from taskd.protocol import data, frames
from taskd.protocol.control import NEWEST, OLDEST

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")

APP = """
from taskd import task
from side import gate

@task
def waits(n: int = 0) -> int:
    gate("go")
    return n

@task
def echo(text: str = "") -> str:
    return text
"""

(SUBMITTERS,) = groups_here(1)
MIB = 1 << 20

GROWTH = 3 * peer_limits.HELD_IN_ALL
"""What the master may take on, whatever its peers do: what may be held, twice over for buffers that
grow by copying and leave holes behind. Without bounds each of these would be 1 GiB or more."""

HELLO = frames.encode({"hello": {"low": OLDEST, "high": NEWEST}})

Tell = Callable[[str], None]


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    made = new_daemon(access={"submit_groups": [SUBMITTERS]}, queues={"others": {}})
    return made.with_releases(APP, "r1").start()


@contextmanager
def bounded_memory(daemon: Daemon) -> Iterator[None]:
    before = memory(daemon, "VmRSS")
    yield
    grown = memory(daemon, "VmHWM") - before
    assert grown < GROWTH, f"the master took on {grown / MIB:.0f} MiB"


def memory(daemon: Daemon, what: str) -> int:
    with open(f"/proc/{daemon.pid}/status", encoding="ascii") as file:
        (found,) = re.findall(rf"{what}:\s+(\d+) kB", file.read())
    return int(found) * 1024


def others_are_served(daemon: Daemon, rounds: int = 15) -> None:
    """An operator's requests, and a task from its submission to its result."""
    with daemon.client(timeout=60) as client:
        for number in range(rounds):
            assert client.status()["pid"] == daemon.pid
            task = client.submit("echo", {"text": str(number)}, queue="others")
            assert task.result(60) == str(number)


def flood(act: Callable[[Tell], Any], uid: int = STRANGER) -> Beside:
    return Beside(uid, [gid(SUBMITTERS)], act)


def many_descriptors() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def connected(path: str) -> socket.socket:
    """Connected, its hello said, nothing read; it never blocks."""
    sock = sockets.connect(path)
    sock.setblocking(False)
    with suppress(OSError):
        sock.send(HELLO)
    return sock


def request(number: int, op: str, **fields: Any) -> bytes:
    return frames.encode({"id": number, "op": op, **fields})


# ── connections ──────────────────────────────────────────────────────────────────────────────


def test_tens_of_thousands_of_connections_leave_room_for_others(daemon: Daemon) -> None:
    def connect(tell: Tell) -> None:
        many_descriptors()
        kept: list[socket.socket] = []
        for number in range(20_000):
            sock = sockets.connect(daemon.submit_socket, timeout=60)
            if number % 2:
                with suppress(OSError):
                    sock.send(HELLO)
            kept.append(sock)
            if len(kept) > 2000:  # those that were let in stay; the rest was refused
                kept[1500:] = []
            if number % 1000 == 0:
                tell("1000")
        tell("all")
        signal.pause()

    with bounded_memory(daemon), flood(connect) as flooder:
        eventually(lambda: len(flooder.told) >= 3, "thousands are connected", 120)
        others_are_served(daemon)
        eventually(lambda: flooder.told[-1] == "all", "all have tried", 120)
        others_are_served(daemon, 3)
        most = peer_limits.most_clients() // 2
        open_now = sum(count for name, count in daemon.descriptors().items() if name == "socket")
        assert open_now <= most + 20
        assert "is the limit for one user" in daemon.log()
        warned = daemon.log().count("no room for a client")
        assert warned < 1000, "refusing is not logged once for each"


def test_one_more_connection_of_a_user_is_refused_with_the_reason(daemon: Daemon) -> None:
    most = peer_limits.most_clients() // 2

    def connect(tell: Tell) -> None:
        many_descriptors()
        kept = [Raw(daemon.submit_socket) for _ in range(most)]
        try:
            Raw(daemon.submit_socket)
        except Busy as error:
            tell(str(error))
        kept.pop().close()
        while True:
            with suppress(Busy):
                Raw(daemon.submit_socket)
                tell("in again")
                break
        signal.pause()

    with flood(connect) as flooder:
        eventually(lambda: flooder.told[-1:] == ["in again"], "there is room again", 60)
        assert flooder.told[0] == (
            f"user {STRANGER} has {most} connections, and {most} is the limit for one user: close "
            "some, or try again later"
        )

        def another(tell: Tell) -> None:
            with Raw(daemon.submit_socket) as raw:
                tell(str(raw.ask("list")))
                signal.pause()

        with flood(another, OTHER) as beside:
            eventually(lambda: beside.told, "another user is served")


def test_strangers_on_worker_sock_keep_neither_clients_nor_workers_out(daemon: Daemon) -> None:
    """Any task can connect there: what it says nothing on is not kept for long."""

    def connect(tell: Tell) -> None:
        many_descriptors()
        worker_socket = os.path.join(daemon.runtime, "worker.sock")
        kept: list[socket.socket] = []
        for number in range(3000):
            kept.append(sockets.connect(worker_socket, timeout=60))
            if number % 500 == 0:
                tell("500")
        tell("all")
        signal.pause()

    with Beside(0, [0], connect) as flooder:
        eventually(lambda: flooder.told, "the first are there", 60)
        others_are_served(daemon)
        eventually(lambda: flooder.told[-1] == "all", "all have connected", 60)
        others_are_served(daemon, 3)
        assert daemon.descriptors()["socket"] < 200
    assert daemon.log().count("turned away") < 100, "they are not logged once for each"


# ── memory ───────────────────────────────────────────────────────────────────────────────────


def test_frames_that_never_end_do_not_fill_the_memory(daemon: Daemon) -> None:
    """On as many connections as there may be, nearly all of the largest frame that there may be:
    together that would be a gigabyte or more."""
    piece = frames.LIMIT.to_bytes(4, "big") + bytes(frames.LIMIT - 1)

    def send(tell: Tell) -> None:
        many_descriptors()
        while True:
            for number in range(peer_limits.most_clients() // 2):
                sock = sockets.connect(daemon.submit_socket, timeout=60)
                with suppress(OSError):
                    sock.sendall(HELLO)
                    sock.settimeout(0.05)
                    sock.sendall(piece)
                tell(str(number))
                kept.append(sock)
            kept.clear()

    kept: list[socket.socket] = []
    with bounded_memory(daemon), flood(send) as flooder:
        eventually(lambda: len(flooder.told) > 100, "a hundred frames were begun", 120)
        others_are_served(daemon)
        eventually(lambda: "a client is cut off" in daemon.log(), "a client is cut off", 120)


def test_replies_that_are_never_read_do_not_fill_the_memory(daemon: Daemon) -> None:
    """Each request asks for a megabyte; there are thousands of them, on many connections."""

    def ask(tell: Tell) -> None:
        many_descriptors()
        with Raw(daemon.submit_socket) as raw:
            task = raw.submit("echo", text="x" * 1_000_000)
            wait = raw.start("wait", tasks=[task])
            raw.reply_to(wait)
            raw.items(wait)
        requests = b"".join(request(n, "show", task=task) for n in range(1, 5000))
        kept = []
        for number in range(peer_limits.most_clients() // 2 - 1):
            kept.append(connected(daemon.submit_socket))
            with suppress(OSError):
                kept[-1].send(requests)
            tell(str(number))
        tell("all")
        signal.pause()

    with bounded_memory(daemon), flood(ask) as flooder:
        eventually(lambda: len(flooder.told) > 50, "fifty ask and do not read", 120)
        others_are_served(daemon)
        eventually(lambda: flooder.told[-1] == "all", "all have asked", 120)
        others_are_served(daemon, 3)
    assert "bytes wait for it" in daemon.log()


def test_a_million_open_requests_on_one_connection_are_not_taken_in(daemon: Daemon) -> None:
    def ask(tell: Tell) -> None:
        sock, number, unsent = connected(daemon.submit_socket), 0, b""
        while number < 1_000_000:
            if not unsent:
                numbers = range(number + 1, number + 1001)
                unsent = b"".join(request(n, "status") for n in numbers)
                number += 1000
            try:
                unsent = unsent[sock.send(unsent) :]
            except BlockingIOError:
                tell("stuck")
                sock.setblocking(True)
        signal.pause()

    with bounded_memory(daemon), flood(ask) as flooder:
        eventually(lambda: flooder.told, "it is not read any more", 60)
        others_are_served(daemon)


def test_one_who_reads_and_asks_without_end_does_not_keep_others_waiting(daemon: Daemon) -> None:
    def ask(tell: Tell) -> None:
        socks = [sockets.connect(daemon.submit_socket) for _ in range(20)]
        for sock in socks:
            sock.sendall(HELLO)
            sock.setblocking(False)
        for start in range(1, 1_000_000, 500):
            piece = b"".join(request(n, "list") for n in range(start, start + 500))
            for sock in socks:
                unsent = piece
                while unsent:
                    with suppress(BlockingIOError):
                        unsent = unsent[sock.send(unsent) :]
                    for each in socks:
                        with suppress(BlockingIOError):
                            each.recv(1 << 20)
            tell(str(start))

    with bounded_memory(daemon), flood(ask) as flooder:
        eventually(lambda: flooder.told, "it has asked thousands of times", 120)
        others_are_served(daemon)


def test_small_messages_that_would_be_large_in_memory_are_no_way_to_fill_it(
    daemon: Daemon,
) -> None:
    """Two million empty lists are 2 MiB in a frame and more than a hundred in memory."""
    lists = b"\x80" * (frames.LIMIT - 20)
    body = b"\xa1\x65hello\x9a" + len(lists).to_bytes(4, "big") + lists

    def send(tell: Tell) -> None:
        for number in range(20):
            with suppress(OSError), sockets.connect(daemon.submit_socket, timeout=60) as sock:
                sock.sendall(len(body).to_bytes(4, "big") + body)
                while sock.recv(65536):
                    pass
            tell(str(number))
        tell("all")
        signal.pause()

    with bounded_memory(daemon), flood(send) as flooder:
        eventually(lambda: flooder.told, "the first is there")
        others_are_served(daemon, 3)
        eventually(lambda: flooder.told[-1] == "all", "all are there", 120)


# ── streams ──────────────────────────────────────────────────────────────────────────────────


def test_thousands_of_streams_are_bounded_and_others_are_served(daemon: Daemon) -> None:
    def follow(tell: Tell) -> None:
        many_descriptors()
        with Raw(daemon.submit_socket) as raw:
            tasks = [raw.submit("waits", n=n) for n in range(20)]
        tell("submitted")
        kept, refused = [], 0
        for _ in range(20):
            raw = Raw(daemon.submit_socket)
            kept.append(raw)
            for _ in range(256):
                try:
                    raw.ask("follow", tasks=tasks[:1], progress=True)
                except Busy:
                    refused += 1
            raw.start("follow", tasks=tasks * 500)
        tell(f"refused {refused}")
        for each in kept:
            each.socket.setblocking(False)
        while True:
            for each in kept:
                with suppress(BlockingIOError):
                    each.socket.recv(1 << 20)

    with bounded_memory(daemon), flood(follow) as flooder:
        eventually(lambda: len(flooder.told) == 2, "it has opened its streams", 120)
        assert flooder.told[1] == f"refused {20 * 256 - peer_limits.MOST_STREAMS}"
        others_are_served(daemon, 3)
        with daemon.client(timeout=60) as client:
            client.cancel(min(task.id for task in client.tasks() if task.name == "waits"))
        others_are_served(daemon)
        daemon.open_gate("go")
        others_are_served(daemon)


# ── doing little ─────────────────────────────────────────────────────────────────────────────


def test_who_reads_one_byte_at_a_time_gets_it_all_and_holds_up_nobody(daemon: Daemon) -> None:
    with Raw(daemon.control) as raw:
        task = raw.submit("echo", text="x" * 3000)
    eventually(lambda: daemon.client().task(task).state == "succeeded", "it is done")

    def read(tell: Tell) -> None:
        with Raw(daemon.submit_socket) as raw:
            mine = raw.submit("echo", text="x" * 3000)
            wait = raw.start("wait", tasks=[mine])
            raw.reply_to(wait)
            raw.items(wait)
            for n in range(3, 43):
                raw.send(request(n, "show", task=mine))
            decoder, found = frames.Decoder(), 0
            while found < 40:
                decoder.feed(raw.socket.recv(1))
                message = decoder.next()
                if message is not None and "ok" in message and "task" in message["ok"]:
                    found += len(data.decode(message["ok"]["task"]["result"])) == 3000
            tell("all")
            signal.pause()

    with flood(read) as reader:
        others_are_served(daemon)
        eventually(lambda: reader.told == ["all"], "it has read it all", 120)

"""What is put back at once when a task has returned, and what is noticed."""

from __future__ import annotations

import fcntl
import gc
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forked import in_child

from taskd.worker.surroundings import Surroundings


@pytest.fixture(autouse=True)
def no_garbage() -> None:
    """Collected in between, it would close descriptors."""
    gc.collect()


def test_what_was_left_alone_is_as_it_was() -> None:
    assert in_child(lambda: Surroundings().differences()) == []


def test_timers_limits_and_tracing_are_put_back_at_once() -> None:
    def under_test() -> tuple[float, bool, object, object, list[str]]:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(0)  # the harness's own
        before = Surroundings()
        signal.setitimer(signal.ITIMER_REAL, 1000)
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
        sys.settrace(lambda *_: None)
        sys.setprofile(lambda *_: None)
        before.calm()
        left, _ = signal.getitimer(signal.ITIMER_REAL)
        soft = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        return left, soft == 1, sys.gettrace(), sys.getprofile(), before.differences()

    assert in_child(under_test) == (0.0, False, None, None, [])


def test_a_handler_of_the_tasks_does_nothing_any_more_and_is_noticed() -> None:
    def under_test() -> list[str]:
        before = Surroundings()
        signal.signal(signal.SIGUSR1, lambda *_: 1 // 0)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        before.calm()
        os.kill(os.getpid(), signal.SIGUSR1)
        return [*before.differences(), signal.getsignal(signal.SIGUSR2).name]

    found = ["users, rights or signals", "signal handlers", "SIG_IGN"]
    assert in_child(under_test) == found


def test_each_change_is_named() -> None:
    def under_test() -> list[str]:
        before = Surroundings()
        os.environ["NEW"] = "1"
        os.umask(0o11)
        os.chdir("/proc")
        os.close(0)
        time.time = lambda: 0.0
        return before.differences()

    assert sorted(in_child(under_test)) == [
        "descriptors", "directory or namespaces", "environment", "functions",
        "users, rights or signals",
    ]  # fmt: skip


def test_what_cannot_be_compared_counts_as_changed() -> None:
    class Odd:
        def __eq__(self, other: object) -> bool:
            raise ValueError

        __hash__ = None  # type: ignore[assignment]

    def under_test() -> list[str]:
        sys.argv = [Odd()]  # type: ignore[list-item]
        before = Surroundings()
        sys.argv = [Odd()]  # type: ignore[list-item]
        return before.differences()

    assert in_child(under_test) == ["what cannot be compared (ValueError)"]


def left_by(leave: Callable[[], object], keeps_connections: bool = False) -> list[str]:
    """What is noticed of what ``leave`` leaves open (it must return it, to keep it open)."""

    def under_test() -> list[str]:
        before = Surroundings(keeps_connections=keeps_connections)
        kept = leave()
        found = before.differences()
        del kept
        return found

    return in_child(under_test)


def connection(server: socket.socket) -> socket.socket:
    return socket.create_connection(server.getsockname())


def test_a_descriptor_that_was_left_open_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "left")
    assert left_by(lambda: os.open(path, os.O_CREAT)) == [f"left open: {path}"]
    many = left_by(lambda: [os.open(path, os.O_CREAT) for _ in range(5)])
    assert many == [f"left open: {path}, {path}, {path} and 2 more"]


def test_a_connection_that_was_left_open_is_named_unless_it_may_stay() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        where = "127.0.0.1:{1}".format(*server.getsockname())
        why = f"left open: a connection with {where} (see [app] keep_connections)"
        assert left_by(lambda: connection(server)) == [why]
        assert left_by(lambda: connection(server), keeps_connections=True) == []


def test_what_is_no_connection_may_not_stay_with_them(tmp_path: Path) -> None:
    path = str(tmp_path / "left")
    assert left_by(lambda: os.open(path, os.O_CREAT), True) == [f"left open: {path}"]
    assert "pipe:" in left_by(os.pipe, True)[0]
    assert "socket:" in left_by(socket.socketpair, True)[0]
    assert "socket:" in left_by(lambda: socket.create_server(("127.0.0.1", 0)), True)[0]


@pytest.mark.parametrize("lock", [fcntl.lockf, fcntl.flock])
def test_a_lock_on_a_file_that_was_open_before_is_noticed(tmp_path: Path, lock: Any) -> None:
    with open(tmp_path / "shared", "w") as file:
        assert left_by(lambda: (lock(file, fcntl.LOCK_EX), lock(file, fcntl.LOCK_UN))) == []
        assert left_by(lambda: lock(file, fcntl.LOCK_EX)) == ["locks"]


def keeps(leave: Callable[[], object]) -> bool:
    def under_test() -> bool:
        before = Surroundings()
        kept = leave()
        found = before.keeps_from_others()
        del kept
        return found

    return in_child(under_test)


def test_what_a_task_keeps_from_others_is_found(tmp_path: Path) -> None:
    def locked() -> object:
        file = open(tmp_path / "own", "w")  # noqa: SIM115
        fcntl.flock(file, fcntl.LOCK_EX)
        return file

    def datagrams() -> object:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        return sock

    def named() -> object:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(tmp_path / "socket"))
        return sock

    assert keeps(locked)
    assert keeps(datagrams)
    assert keeps(named)
    assert keeps(lambda: socket.create_server(("127.0.0.1", 0)))
    with open(tmp_path / "shared", "w") as file:
        assert keeps(lambda: fcntl.lockf(file, fcntl.LOCK_EX))
        fcntl.flock(file, fcntl.LOCK_EX)
        assert not keeps(lambda: None), "it had this one before"


def test_what_everybody_else_can_have_as_well_is_not(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not keeps(lambda: connection(server))
    assert not keeps(lambda: open(tmp_path / "own", "w"))  # noqa: SIM115
    for leave in (os.pipe, socket.socketpair, socket.socket):
        assert not keeps(leave)


def test_a_descriptor_of_the_workers_own_may_become_another() -> None:
    def under_test() -> list[str]:
        own = [os.open("/dev/null", os.O_RDONLY)]
        before = Surroundings(lambda: own)
        first = own[0]
        own[0] = fcntl.fcntl(0, fcntl.F_DUPFD, first + 1)  # a number that nothing else has
        os.close(first)
        return before.differences()

    assert in_child(under_test) == []

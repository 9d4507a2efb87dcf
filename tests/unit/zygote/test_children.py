"""The zygote's children: a worker's death is told once, truly, and only when its tree is gone."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from forked import fork, hang, in_child
from support import processes
from support.waiting import eventually

from taskd.zygote.children import Children, Death

WORKER = b"w" * 16
OTHER = b"o" * 16


def reap_all(children: Children) -> list[Death]:
    """The deaths that are told once there are any."""
    return eventually(children.reap)


def worker(children: Children, body: Callable[[], object], id: bytes = WORKER) -> int:
    pid = fork(body)
    children.add(id, pid)
    return pid


def leave_a_daemon_behind(told: int) -> None:
    def daemon() -> None:
        os.setsid()
        os.write(told, str(os.getpid()).encode())
        hang()

    fork(daemon)


def test_exit_statuses_are_true() -> None:
    def under_test() -> list[int]:
        children = Children()
        worker(children, lambda: os._exit(7))
        first = reap_all(children)[0].status
        pid = worker(children, hang, OTHER)
        os.kill(pid, signal.SIGKILL)
        return [first, reap_all(children)[0].status]

    assert in_child(under_test) == [7 << 8, signal.SIGKILL]


def test_a_death_is_told_once_and_kept_until_it_is_noted() -> None:
    def under_test() -> tuple[int, list[Death], bool, bool, bool]:
        children = Children()
        pid = worker(children, lambda: None)
        told = reap_all(children)
        assert told == [Death(WORKER, pid, 0)]
        again, alive, before = children.reap(), children.alive, children.is_empty
        children.forget(WORKER)
        return len(told), again, alive, before, children.is_empty

    assert in_child(under_test) == (1, [], False, False, True)


def test_leftovers_in_sessions_of_their_own_are_gone_before_the_death_is_told() -> None:
    def under_test() -> bool:
        children = Children()
        read, write = os.pipe()
        worker(children, lambda: leave_a_daemon_behind(write))
        lost = int(os.read(read, 20))
        reap_all(children)
        return processes.state_and_parent(lost) is None

    assert in_child(under_test)


def test_a_zombie_left_behind_does_not_hold_the_news_back() -> None:
    """It comes with its worker's death, and no further SIGCHLD ever asks for another look."""

    def under_test() -> list[bytes]:
        children = Children()
        read, write = os.pipe()

        def body() -> None:
            dead = fork(lambda: None)
            eventually(lambda: (s := processes.state_and_parent(dead)) and s[0] == "Z")
            os.write(write, str(dead).encode())
            hang()

        pid = worker(children, body)
        dead = int(os.read(read, 20))
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: (s := processes.state_and_parent(dead)) and s[1] == os.getpid())
        return [death.worker for death in children.reap()]

    assert in_child(under_test) == [WORKER]


def test_the_apps_own_processes_are_spared() -> None:
    def under_test() -> bool:
        own = fork(hang)
        children = Children()
        read, write = os.pipe()
        worker(children, lambda: leave_a_daemon_behind(write))
        os.read(read, 20)
        reap_all(children)
        return processes.is_alive(own)

    assert in_child(under_test)


def test_other_workers_are_spared_when_one_leaves_something_behind() -> None:
    def under_test() -> tuple[bool, bool]:
        children = Children()
        other = worker(children, hang, OTHER)
        read, write = os.pipe()
        worker(children, lambda: leave_a_daemon_behind(write))
        os.read(read, 20)
        told = reap_all(children)
        return [death.worker for death in told] == [WORKER] and processes.is_alive(
            other
        ), children.alive

    assert in_child(under_test) == (True, True)


def test_a_live_workers_own_children_are_not_its_zygotes_business() -> None:
    def under_test() -> bool:
        children = Children()
        read, write = os.pipe()

        def body() -> None:
            child = fork(hang)
            os.write(write, str(child).encode())
            hang()

        worker(children, body, OTHER)
        child = int(os.read(read, 20))
        worker(children, lambda: None)
        reap_all(children)
        return processes.is_alive(child)

    assert in_child(under_test)

"""What a process left behind is found and killed, whatever it did to get away."""

from __future__ import annotations

import os
import signal

import pytest
from forked import fork, hang, in_child
from support import processes
from support.waiting import eventually

from taskd.posix import process, tree


def daemonise(told: int) -> None:
    """Fork twice, with a session of its own, as daemons do; tells the pid that hangs."""

    def second() -> None:
        os.setsid()

        def third() -> None:
            os.setsid()
            os.write(told, f"{os.getpid()} ".encode())
            hang()

        fork(third)

    fork(second)


def is_zombie(pid: int) -> bool:
    found = processes.state_and_parent(pid)
    return found is not None and found[0] == "Z"


def test_a_daemon_that_forked_twice_into_sessions_of_its_own_is_killed() -> None:
    def under_test() -> tuple[int, bool]:
        read, write = os.pipe()
        daemonise(write)
        lost = int(os.read(read, 20))
        killed = tree.kill_all()
        return killed, processes.is_alive(lost)

    killed, alive = in_child(under_test)
    assert killed >= 1
    assert not alive


def test_nothing_left_behind_counts_as_nothing() -> None:
    assert in_child(tree.kill_all) == 0


def test_the_spared_child_lives_and_the_other_does_not() -> None:
    def under_test() -> tuple[int, bool, bool]:
        spared, other = fork(hang), fork(hang)
        killed = tree.kill_all({spared})
        return killed, processes.is_alive(spared), processes.is_alive(other)

    assert in_child(under_test) == (1, True, False)


def test_a_child_that_stopped_is_killed_all_the_same() -> None:
    def under_test() -> bool:
        pid = fork(hang)
        os.kill(pid, signal.SIGSTOP)
        tree.kill_all()
        return processes.is_alive(pid)

    assert not in_child(under_test)


def test_children_lists_the_living_and_the_dead() -> None:
    def under_test() -> bool:
        living, dead = fork(hang), fork(lambda: None)
        eventually(lambda: is_zombie(dead))
        return sorted(tree.children()) == sorted([living, dead])

    assert in_child(under_test)


def test_has_children_counts_zombies_and_knows_when_there_are_none() -> None:
    def under_test() -> tuple[bool, bool, bool]:
        before = tree.has_children()
        pid = fork(lambda: None)
        eventually(lambda: is_zombie(pid))
        during = tree.has_children()
        os.waitpid(pid, 0)
        return before, during, tree.has_children()

    assert in_child(under_test) == (False, True, False)


def test_a_strike_that_only_reaps_a_zombie_says_that_nothing_is_left() -> None:
    """Nothing more dies after it, so that no SIGCHLD would ever call for another look."""

    def under_test() -> bool:
        pid = fork(lambda: None)
        eventually(lambda: is_zombie(pid))
        return tree.strike(())

    assert in_child(under_test) is False


def test_a_strike_says_that_something_is_left_until_it_is_reaped() -> None:
    def under_test() -> bool:
        read, write = os.pipe()
        daemonise(write)
        lost = int(os.read(read, 20))
        eventually(lambda: not tree.strike(()))
        return processes.is_alive(lost) or tree.has_children()

    assert not in_child(under_test)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a child that it may not kill")
def test_a_child_that_may_not_be_killed_is_let_be() -> None:
    """A set-user-ID program that a task started: it must not take its keeper down."""

    def under_test() -> tuple[bool, int, bool]:
        pid = fork(hang)  # root's
        tree.children()  # what it imports may be root's alone
        os.setresuid(65534, 65534, 0)
        try:
            left, killed = tree.strike(()), tree.kill_all()
        finally:
            os.setresuid(0, 0, 0)
        return left, killed, processes.is_alive(pid)

    assert in_child(under_test) == (False, 0, True)


def test_kill_session_kills_the_members_of_one_session_alone() -> None:
    def under_test() -> tuple[bool, bool]:
        read, write = os.pipe()

        def lead() -> None:
            os.setsid()
            member = fork(hang)
            os.write(write, str(member).encode())
            hang()

        leader, outsider = fork(lead), fork(hang)
        member = int(os.read(read, 20))
        assert tree.kill_session(leader)
        eventually(lambda: not processes.is_alive(member) and not processes.is_alive(leader))
        return processes.is_alive(outsider), tree.kill_session(leader)

    outsider_lives, still_found = in_child(under_test)
    assert outsider_lives
    assert not still_found, "zombies that nobody has reaped yet can do nothing more"


def test_orphans_of_a_subreaper_become_its_children() -> None:
    def under_test() -> bool:
        process.become_subreaper()
        read, write = os.pipe()
        daemonise(write)
        lost = int(os.read(read, 20))
        eventually(lambda: lost in tree.children())
        return True

    assert in_child(under_test)

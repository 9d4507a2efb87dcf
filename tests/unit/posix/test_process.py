"""Who a process is: a pid is reused, an identity is not, and a zombie is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from forked import fork, hang, in_child
from support.waiting import eventually

from taskd.posix import process


def test_a_living_process_is_not_gone() -> None:
    assert not process.is_gone(process.identity())


def test_another_start_time_under_the_same_pid_is_another_process() -> None:
    me = process.identity()
    assert process.is_gone(me._replace(start=me.start - 1))


def test_another_boot_means_gone_although_pid_and_start_fit() -> None:
    assert process.is_gone(process.identity()._replace(boot="another"))


def test_a_zombie_counts_as_gone_before_it_is_reaped() -> None:
    def under_test() -> tuple[bool, bool, bool]:
        pid = fork(hang)
        who = process.identity(pid)
        before = process.is_gone(who)
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: process.is_gone(who))
        unreaped = os.waitpid(pid, os.WNOHANG)[0] == pid
        return before, unreaped, process.is_gone(who)

    assert in_child(under_test) == (False, True, True)


def test_a_stopped_process_is_not_gone() -> None:
    def under_test() -> bool:
        pid = fork(hang)
        os.kill(pid, signal.SIGSTOP)
        os.waitpid(pid, os.WUNTRACED)
        return process.is_gone(process.identity(pid))

    assert not in_child(under_test)


def test_a_process_that_never_was_has_no_identity() -> None:
    pid = int(subprocess.check_output([sys.executable, "-c", "import os; print(os.getpid())"]))
    assert process.start_time(pid) is None
    with pytest.raises(ProcessLookupError):
        process.identity(pid)
    assert not process.is_zombie(pid)


def test_a_name_with_spaces_and_brackets_does_not_shift_the_fields() -> None:
    def under_test() -> bool:
        before = process.identity()
        with open("/proc/self/comm", "w", encoding="ascii") as file:
            file.write("a) R 1 (b")
        return process.identity() == before

    assert in_child(under_test)


def test_start_times_grow() -> None:
    def under_test() -> bool:
        first = process.identity(os.getpid())
        child = process.identity(fork(hang))
        return child.start >= first.start and child.boot == first.boot

    assert in_child(under_test)

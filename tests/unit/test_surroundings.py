"""What is put back at once when a task has returned, and what is noticed."""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
import time

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

"""A deadline in a process's own time: hanging and computing count, starving does not."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from support.starving import LAST, calm, hogged
from support.waiting import eventually

from taskd.master.loop.deadline import Deadline
from taskd.master.loop.loop import Loop
from taskd.posix import starved

SLEEPS = "import time; print(flush=True); time.sleep(600)"
COMPUTES = "print(flush=True)\nwhile True: pass"


@contextmanager
def child(code: str) -> Iterator[int]:
    made = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert made.stdout is not None
        made.stdout.readline()
        yield made.pid
    finally:
        made.kill()
        made.communicate()


def starving(pid: int) -> Callable[[], bool]:
    """Tells whether that process has starved three times as long as it is given here (0.5 s)."""
    before, since = starved.look(pid), time.monotonic()
    return lambda: starved.lost(before, starved.look(pid), time.monotonic() - since) > 1.5


class Watched:
    """A loop with one deadline for one process."""

    def __init__(self, pid: int, seconds: float) -> None:
        self.loop = Loop()
        self.overdue = 0
        self.deadline = Deadline(self.loop, seconds, lambda: [pid], self._over)

    def _over(self) -> None:
        self.overdue += 1

    def until_over(self) -> None:
        eventually(lambda: self.overdue, between=lambda _: self.loop.turn())


def test_a_process_that_sleeps_is_overdue() -> None:
    with child(SLEEPS) as pid:
        Watched(pid, 0.2).until_over()


def test_a_process_that_computes_is_overdue() -> None:
    with child(COMPUTES) as pid:
        Watched(pid, 0.2).until_over()


def test_a_process_that_is_gone_is_overdue() -> None:
    with child(SLEEPS) as pid:
        pass
    Watched(pid, 0.1).until_over()


def test_one_that_gets_no_cpu_is_given_that_time_again() -> None:
    with child(LAST + COMPUTES) as pid:
        with hogged():
            watched = Watched(pid, 0.5)
            has_starved = starving(pid)
            turn = lambda _: watched.loop.turn()  # noqa: E731
            eventually(lambda: watched.overdue or has_starved(), between=turn)
            assert not watched.overdue
        calm(pid)
        watched.until_over()


STEP = f"""
from taskd.upgrade import image
import time
{LAST}
with image.limited(0.5):
    print("begun", flush=True)
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass
print("done", flush=True)
"""


def test_a_step_of_our_own_that_gets_no_cpu_is_given_that_time_again() -> None:
    with (
        hogged(),
        subprocess.Popen([sys.executable, "-c", STEP], stdout=subprocess.PIPE) as made,
    ):
        assert made.stdout is not None
        assert made.stdout.readline() == b"begun\n"
        has_starved = starving(made.pid)
        eventually(lambda: made.poll() is not None or has_starved())
        assert made.poll() is None
        calm(made.pid)
        assert made.stdout.read() == b"done\n"
    assert made.returncode == 0


def test_a_deadline_that_is_cancelled_never_calls() -> None:
    with child(SLEEPS) as pid:
        watched = Watched(pid, 0.0)
        watched.deadline.cancel()
        watched.loop.soon(lambda: None)
        watched.loop.turn()
        assert not watched.overdue


def test_where_the_kernel_counts_nothing_a_process_that_computes_has_not_starved() -> None:
    """Such a kernel has zeros in schedstat for every thread."""
    computes = {1: starved.Thread(0.0, 0.0, True), 2: starved.Thread(0.0, 0.0, False)}
    assert starved.lost(computes, computes, 60.0) == 0.0
    counted = computes | {2: starved.Thread(0.5, 0.0, False)}
    assert starved.lost(counted, counted, 60.0) == 60.0

"""How long a helper that cleans up after others is spared."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from taskd.posix import cleaners, starved
from taskd.posix.cleaners import Patience

HELPER = """
import signal
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
print("ready", flush=True)
signal.pause()
"""


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(cleaners, "monotonic", made)
    return made


@pytest.fixture
def helper() -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", HELPER], stdout=subprocess.PIPE) as made:
        assert made.stdout is not None and made.stdout.readline() == b"ready\n"
        yield made.pid
        made.send_signal(signal.SIGKILL)


def test_a_helper_is_spared_for_its_grace_and_no_longer(
    clock: Clock, helper: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starved, "lost", lambda before, now, passed: 0.0)  # it gets its CPU
    patience = Patience()
    assert patience.lets_be(helper)
    clock.now += cleaners.GRACE / 2
    assert patience.lets_be(helper)
    clock.now += cleaners.GRACE / 2
    assert not patience.lets_be(helper)


@pytest.mark.parametrize("part", [1.0, 0.5])
def test_the_time_in_which_it_gets_no_cpu_is_not_counted(
    clock: Clock, helper: int, monkeypatch: pytest.MonkeyPatch, part: float
) -> None:
    monkeypatch.setattr(starved, "lost", lambda before, now, passed: passed * part)
    patience = Patience()
    assert patience.lets_be(helper)
    clock.now += cleaners.GRACE * 1.5
    assert patience.lets_be(helper)
    clock.now += cleaners.STARVED + cleaners.GRACE
    assert not patience.lets_be(helper), "a process that looks like a helper gains no more"

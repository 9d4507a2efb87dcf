"""The clients of a storm, by themselves: real processes, and no daemon."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from contrib.storm import clientprocess, place
from contrib.storm.place import Place


@pytest.fixture
def without_daemon(tmp_path: Path) -> Iterator[Place]:
    made = place.make(str(tmp_path / "storm"), 1 << 20)
    yield made
    made.unmount()


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_that_comes_while_a_client_starts_is_heeded_once_it_can(
    without_daemon: Place, number: int
) -> None:
    for _ in range(3):
        client = clientprocess.spawn("submitter", without_daemon.root, "1.0", "0", "60")
        client.send_signal(number)
        client.terminate()
        assert client.wait(60) == 0

"""Which of two taskds is older, and which Python is whose."""

from __future__ import annotations

import sys

import pytest

from taskd.model.routing import is_older
from taskd.posix import spawn
from taskd.revision import release


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("0.2.0", "0.3.0"),
        ("0.2.0", "0.10.0"),
        ("0.2", "0.2.1"),
        ("0.2.9", "1.0"),
        ("0.2.1rc1", "0.2.1"),
    ],
)
def test_an_older_taskd_is_told_by_its_numbers(older: str, newer: str) -> None:
    assert is_older(older, newer)
    assert not is_older(newer, older)
    assert not is_older(newer, newer)


@pytest.mark.parametrize("unknown", ["", "main", "v2"])
def test_what_names_no_number_is_not_older(unknown: str) -> None:
    assert not is_older(unknown, "0.2.0")
    assert not is_older("0.2.0", unknown)


def test_a_release_without_a_python_has_the_one_that_the_daemon_was_started_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(spawn.LAUNCHER, raising=False)
    assert release.interpreter("/nowhere", None) == sys.executable
    monkeypatch.setenv(spawn.LAUNCHER, "/opt/taskd/bin/python")
    assert release.interpreter("/nowhere", None) == "/opt/taskd/bin/python"
    assert spawn.LAUNCHER not in spawn.environment(), "a daemon below us has one of its own"

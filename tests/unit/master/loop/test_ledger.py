"""The ledger: exactly what it lists crosses an exec, and nothing does at any other time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator

import pytest

from taskd.master.loop.ledger import Entry, Kind, Ledger


@pytest.fixture
def fds() -> Iterator[list[int]]:
    made = [os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) for _ in range(4)]
    yield made
    for fd in made:
        os.close(fd)


def crosses(fd: int) -> bool:
    """By the flag itself."""
    return not fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC


def test_only_what_is_listed_and_the_snapshot_are_opened_for_the_exec(fds: list[int]) -> None:
    ledger = Ledger()
    ledger.add(fds[0], Kind.LISTENER, "control.sock")
    ledger.add(fds[1], Kind.SLOT, "slot:ab")
    ledger.open_for_exec(also=fds[2])
    assert [crosses(fd) for fd in fds] == [True, True, True, False]


def test_an_exec_that_failed_closes_them_again(fds: list[int]) -> None:
    ledger = Ledger()
    for number, fd in enumerate(fds):
        ledger.add(fd, Kind.CLIENT, f"client:{number}")
    ledger.open_for_exec(also=fds[0])
    ledger.close_on_exec()
    assert not [fd for fd in fds if crosses(fd)]


def test_a_name_stands_for_one_descriptor(fds: list[int]) -> None:
    ledger = Ledger()
    ledger.add(fds[0], Kind.LOCK, "lock")
    with pytest.raises(ValueError, match="already has a descriptor named lock"):
        ledger.add(fds[1], Kind.LOCK, "lock")
    assert ledger["lock"] == fds[0]


def test_what_its_owner_dropped_does_not_cross(fds: list[int]) -> None:
    ledger = Ledger()
    ledger.add(fds[0], Kind.WORKER, "worker:ab")
    ledger.drop("worker:ab")
    ledger.drop("worker:ab")
    ledger.open_for_exec(also=fds[1])
    assert not crosses(fds[0])
    assert "worker:ab" not in ledger
    assert ledger.entries() == []


def test_entries_tell_number_kind_and_name(fds: list[int]) -> None:
    ledger = Ledger()
    ledger.add(fds[0], Kind.ZYGOTE, "zygote:1")
    assert ledger.entries() == [Entry(fds[0], Kind.ZYGOTE, "zygote:1")]


def test_a_descriptor_that_is_not_open_refuses_the_exec(fds: list[int]) -> None:
    ledger = Ledger()
    closed = os.dup(fds[0])
    os.close(closed)
    ledger.add(closed, Kind.SLOT, "slot:ab")
    with pytest.raises(OSError):
        ledger.open_for_exec(also=fds[1])

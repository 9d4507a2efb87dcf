"""The ledger: exactly what it lists crosses an exec, and nothing does at any other time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator

import pytest

from taskd.master.loop.ledger import Entry, Kind, close_on_exec, ledger, open_for_exec


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
    listed = [Entry(fds[0], Kind.LISTENER, "control.sock"), Entry(fds[1], Kind.SLOT, "slot:ab")]
    open_for_exec(listed, also=fds[2])
    assert [crosses(fd) for fd in fds] == [True, True, True, False]


def test_an_exec_that_failed_closes_them_again(fds: list[int]) -> None:
    listed = [Entry(fd, Kind.CLIENT, f"client:{number}") for number, fd in enumerate(fds)]
    open_for_exec(listed, also=fds[0])
    close_on_exec(listed)
    assert not [fd for fd in fds if crosses(fd)]


def test_a_name_stands_for_one_descriptor(fds: list[int]) -> None:
    twice = [Entry(fd, Kind.LOCK, "lock") for fd in fds[:2]]
    with pytest.raises(ValueError, match="two descriptors are named lock"):
        ledger(twice)
    assert ledger(twice[:1]) == twice[:1]


def test_a_descriptor_that_is_not_open_refuses_the_exec(fds: list[int]) -> None:
    closed = os.dup(fds[0])
    os.close(closed)
    with pytest.raises(OSError):
        open_for_exec([Entry(closed, Kind.SLOT, "slot:ab")], also=fds[1])

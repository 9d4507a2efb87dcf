"""Record locks, with real processes, since a process is never told about its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from slot_samples import Child, in_child

from taskd.posix import locks


@pytest.fixture
def path(tmp_path: Path) -> str:
    file = tmp_path / "lock"
    file.touch()
    return str(file)


def lock_it(path: str) -> int:
    fd = os.open(path, os.O_RDWR)
    locks.take(fd)
    return fd


def test_a_lock_is_refused_to_a_second_process_and_names_the_first(path: str) -> None:
    with Child(lambda: void(lock_it(path))) as child:
        fd = os.open(path, os.O_RDWR)
        with pytest.raises(locks.Held) as refused:
            locks.take(fd)
        assert refused.value.pid == child.pid
        assert str(child.pid) in str(refused.value)
        assert locks.holder(fd) == child.pid
        child.kill()
        assert locks.holder(fd) is None
        locks.take(fd)
        os.close(fd)


def test_asking_works_on_a_descriptor_for_reading_only_and_takes_nothing(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    assert locks.holder(fd) is None
    with Child(lambda: void(lock_it(path))) as child:
        assert locks.holder(fd) == child.pid
    os.close(fd)


def test_the_lock_covers_what_the_file_grows_to(path: str) -> None:
    def lock_and_grow() -> None:
        os.pwrite(lock_it(path), b"x" * 10000, 0)

    with Child(lock_and_grow) as child:
        fd = os.open(path, os.O_RDWR)
        assert locks.holder(fd) == child.pid
        os.close(fd)


def test_a_process_is_not_told_about_its_own_lock_and_may_take_it_again(path: str) -> None:
    fd = lock_it(path)
    assert locks.holder(fd) is None
    locks.take(fd)
    os.close(fd)


def test_a_forked_child_has_no_part_in_its_parents_lock(path: str) -> None:
    fd = lock_it(path)
    parent = os.getpid()

    def child() -> None:
        assert locks.holder(fd) == parent
        with pytest.raises(locks.Held):
            locks.take(fd)
        os.close(fd)

    in_child(child)

    def another() -> None:
        assert locks.holder(fd) == parent, "the first child's close has dropped the lock"

    in_child(another)
    os.close(fd)


def void(_: object) -> None:
    """Make a value into a callback's None."""

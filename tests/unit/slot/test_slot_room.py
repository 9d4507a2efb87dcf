"""Slots on a full disk: nothing is lost, nothing is half written, and END still goes in."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
from slot_samples import (
    BEGIN,
    END,
    WORKER,
    blocks_of,
    in_child,
    new_slot,
    size_of,
    small_disk,
    step,
)

from taskd.posix import process
from taskd.protocol.saved import Kind
from taskd.slot import layout, reader, writer
from taskd.slot.writer import SlotWriter


def fill(slot: SlotWriter, size: int = 300) -> int:
    """Append steps until there is no room; returns how many were written."""
    for count in range(100_000):
        try:
            slot.append(Kind.STEP, step(size))
        except layout.SlotFull:
            return count
    raise AssertionError("the disk never got full")


def use_up_and_end(slot: SlotWriter, use_up_the_rest: Callable[[], None]) -> None:
    """On a disk that gets full: nothing is lost, nothing is half, and END still goes in."""
    slot.append(Kind.BEGIN, BEGIN)
    count = fill(slot)
    use_up_the_rest()
    whole = size_of(slot)
    with pytest.raises(layout.SlotFull, match="no room"):
        slot.append(Kind.STEP, step(300))
    with pytest.raises(layout.SlotFull):
        slot.append_end({**END, "result": b"r" * 100_000})
    content = reader.read(slot.fd)
    assert (content.size, content.saves, content.torn) == (whole, count, False)
    ending = {**END, "result": b"r" * 3900}
    offset = slot.append_end(ending)
    assert offset == whole
    content = reader.read(slot.fd)
    assert (content.end, content.saves, content.damage) == (ending, count, None)


def and_go_on(slot: SlotWriter) -> None:
    """There is room again: so is everything else."""
    slot.reset()
    slot.append(Kind.BEGIN, {**BEGIN, "attempt": 3})
    slot.append(Kind.STEP, step(20_000), durable=True)
    slot.append_end({**END, "result": b"r" * 1_000})
    content = reader.read(slot.fd)
    assert content.begin == {**BEGIN, "attempt": 3}
    assert content.saves == 1
    assert content.end is not None


def test_a_full_disk_loses_nothing_and_takes_the_end(tmp_path: Path) -> None:
    """A real file system of 256 KiB. Where mounting is not permitted, a size limit stands in."""
    with small_disk(str(tmp_path), "256k") as mounted:
        if not mounted:
            in_child(lambda: full_by_limit(str(tmp_path)))
            return
        with new_slot(str(tmp_path)) as slot:
            use_up_and_end(slot, lambda: use_up(tmp_path / "other"))
            (tmp_path / "other").unlink()
            and_go_on(slot)


def use_up(path: Path) -> None:
    """Take every byte that is left on that disk."""
    with open(path, "wb", buffering=0) as file:
        while True:
            try:
                file.write(b"x" * 512)
            except OSError as error:
                assert error.errno == errno.ENOSPC
                return


def test_a_size_limit_loses_nothing_and_takes_the_end(tmp_path: Path) -> None:
    in_child(lambda: full_by_limit(str(tmp_path)))


def full_by_limit(directory: str) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    with new_slot(directory, b"under size limit") as slot:
        use_up_and_end(slot, lambda: None)
        and_go_on(slot)


def test_a_full_disk_refuses_a_new_slot_and_keeps_nothing_of_it(tmp_path: Path) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))
        with pytest.raises(layout.SlotFull):
            SlotWriter.create(str(tmp_path), WORKER, process.identity(), "r1")

    in_child(limited)
    assert os.listdir(tmp_path) == []


def test_an_attempt_that_waits_for_room_goes_on_where_it_was(tmp_path: Path) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        with new_slot(str(tmp_path)) as slot:
            slot.append(Kind.BEGIN, BEGIN)
            first = fill(slot)
            assert fill(slot) == 0
            resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, resource.RLIM_INFINITY))
            second = fill(slot)
            assert second > 0
            slot.append_end(END)
            content = reader.read(slot.fd)
            assert (content.saves, content.damage) == (first + second, None)

    in_child(limited)


def test_a_short_write_is_truncated_back(tmp_path: Path) -> None:
    """A real one: the limit falls into the middle of a record, in room that was reserved."""

    def limited() -> None:
        with new_slot(str(tmp_path)) as slot:
            slot.append(Kind.BEGIN, BEGIN)
            slot.append(Kind.STEP, step(300))
            whole = size_of(slot)
            limit = whole + 100
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            with pytest.raises(layout.SlotFull, match="100 of 3"):
                slot.append(Kind.STEP, step(300))
            assert size_of(slot) == whole
            with pytest.raises(layout.SlotFull):
                slot.append(Kind.STEP, step(300))
            assert size_of(slot) == whole
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
            assert slot.append(Kind.STEP, step(2)) == whole
            content = reader.read(slot.fd)
            assert [len(record.fields["value"]) for record in content.records] == [300, 2]
            assert blocks_of(slot) >= size_of(slot) + writer.END_ROOM

    in_child(limited)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_write_that_fails_after_some_bytes_is_truncated_back(tmp_path: Path, number: int) -> None:
    real = os.pwrite

    def half(fd: int, data: bytes, offset: int) -> int:
        real(fd, data[: len(data) // 2], offset)
        raise OSError(number, os.strerror(number))

    with new_slot(str(tmp_path)) as slot:
        slot.append(Kind.BEGIN, BEGIN)
        whole = size_of(slot)
        expected = OSError if number == errno.EIO else layout.SlotFull
        with mock.patch("os.pwrite", half), pytest.raises(expected):
            slot.append(Kind.STEP, step(300))
        assert size_of(slot) == whole
        assert slot.append(Kind.STEP, step(300)) == whole
        assert reader.read(slot.fd).damage is None


def test_an_exception_in_the_middle_of_a_write_is_cleared_up_by_the_next(tmp_path: Path) -> None:
    """A signal handler of user code may raise between the write and what follows it."""
    real = os.pwrite

    def whole_and_raise(fd: int, data: bytes, offset: int) -> int:
        real(fd, data, offset)
        raise KeyboardInterrupt

    with new_slot(str(tmp_path)) as slot:
        slot.append(Kind.BEGIN, BEGIN)
        whole = size_of(slot)
        with mock.patch("os.pwrite", whole_and_raise), pytest.raises(KeyboardInterrupt):
            slot.append(Kind.STEP, step(300))
        assert slot.append(Kind.STEP, step(2)) == whole
        content = reader.read(slot.fd)
        assert [record.fields["value"] for record in content.records] == [b"vv"]
        assert (content.torn, content.damage) == (False, None)


def test_room_for_the_end_stays_allocated_behind_every_record(tmp_path: Path) -> None:
    with new_slot(str(tmp_path)) as slot:
        for size in (1, 5_000, 70_000, 200, 1_000_000, 3):
            slot.append(Kind.STEP, step(size))
            assert blocks_of(slot) >= size_of(slot) + writer.END_ROOM
        slot.reset()
        assert size_of(slot) == layout.BLOCK
        assert blocks_of(slot) >= layout.BLOCK + writer.END_ROOM


def test_a_file_system_that_cannot_reserve_is_written_all_the_same(tmp_path: Path) -> None:
    with mock.patch("taskd.posix.files.reserve", return_value=False), new_slot(str(tmp_path)) as s:
        s.append(Kind.BEGIN, BEGIN)
        s.append(Kind.STEP, step(200_000))
        s.append_end(END)
        assert reader.read(s.fd).saves == 1

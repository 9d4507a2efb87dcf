"""A slot whose descriptor user code has closed, and perhaps put a file of its own in its place."""

from __future__ import annotations

import contextlib
import os
import resource
import stat
from pathlib import Path

import pytest
from slot_samples import BEGIN, END, in_child, new_slot, step

from taskd.posix import files, locks
from taskd.protocol.saved import Kind
from taskd.slot import reader
from taskd.slot.writer import SlotLost, SlotWriter


def read(directory: Path, slot: SlotWriter) -> reader.Content:
    fd = os.open(directory / slot.name, os.O_RDONLY)
    content = reader.read(fd)
    os.dup2(fd, fd)  # and left open: closing it would drop the lock
    return content


def holder(path: Path) -> int | None:
    """Who has the lock, as another process is told."""
    reads, writes = os.pipe()
    if (pid := os.fork()) == 0:
        os.write(writes, str(locks.holder(os.open(path, os.O_RDWR))).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    told = os.read(reads, 100).decode()
    os.close(reads)
    os.close(writes)
    return None if told == "None" else int(told)


def use(slot: SlotWriter, how: str) -> None:
    match how:
        case "append":
            slot.append(Kind.STEP, step(9))
        case "append much":
            slot.append(Kind.STEP, step(100_000))
        case "snapshot":
            slot.snapshot(b"state")
        case "sync":
            slot.sync()
        case "end":
            slot.append_end(END)
        case "reset":
            slot.reset()


USES = ["append", "append much", "snapshot", "sync", "end", "reset"]


@pytest.mark.parametrize("how", USES)
@pytest.mark.parametrize("taken", [False, True], ids=["closed", "closed and taken"])
def test_a_closed_slot_is_opened_and_locked_again(tmp_path: Path, how: str, taken: bool) -> None:
    with new_slot(str(tmp_path)) as slot:
        slot.append(Kind.BEGIN, BEGIN)
        number = slot.fd
        os.close(number)
        assert holder(tmp_path / slot.name) is None
        if taken:
            theirs = os.open(tmp_path / "theirs", os.O_RDWR | os.O_CREAT, 0o600)
            os.write(theirs, b"nothing but this")
            os.dup2(theirs, number)
            os.close(theirs)
        use(slot, how)
        slot.append(Kind.BEGIN, {**BEGIN, "attempt": 9})
        slot.append(Kind.STEP, step(5))
        content = read(tmp_path, slot)
        assert (content.begin, content.saves) == ({**BEGIN, "attempt": 9}, 1)
        assert (content.damage, content.torn) == (None, False)
        assert holder(tmp_path / slot.name) == os.getpid()
        if taken:
            assert (tmp_path / "theirs").read_bytes() == b"nothing but this"
            assert os.pread(number, 100, 0) == b"nothing but this", "nor was it closed"
            os.close(number)


@pytest.mark.parametrize("how", USES)
@pytest.mark.parametrize("put", [None, b"", b"something else"], ids=["gone", "empty", "other"])
def test_one_that_is_not_to_be_had_again_is_lost_and_nothing_else_is_written(
    tmp_path: Path, how: str, put: bytes | None
) -> None:
    with new_slot(str(tmp_path)) as slot:
        slot.append(Kind.BEGIN, BEGIN)
        kept = os.open(tmp_path / slot.name, os.O_RDONLY)  # as the master has it
        whole = os.pread(kept, 1 << 20, 0)
        os.unlink(tmp_path / slot.name)
        os.close(slot.fd)
        if put is not None:
            (tmp_path / slot.name).write_bytes(put)
        slot.fd = os.dup2(os.open(os.devnull, os.O_RDWR), slot.fd)
        with pytest.raises(SlotLost, match="closed by code that runs in it"):
            use(slot, how)
        assert os.pread(kept, 1 << 20, 0) == whole
        if put is not None:
            assert (tmp_path / slot.name).read_bytes() == put
        os.close(kept)


def close_inherited() -> None:
    """What other tests left open in the process that forked us; not the pipe for our answer."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the descriptor of the listing itself
            if int(name) > 2 and not stat.S_ISFIFO(os.fstat(int(name)).st_mode):
                os.close(int(name))


def test_its_number_is_not_the_next_that_a_file_gets(tmp_path: Path) -> None:
    def in_a_process_of_its_own() -> None:
        close_inherited()
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        for limit in (hard, 1024, 300):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            with new_slot(str(tmp_path), os.urandom(16)) as slot:
                highest = 1024 if limit < 0 else min(limit, 1024)
                assert highest - 64 <= slot.fd < highest
                assert not os.get_inheritable(slot.fd)

    in_child(in_a_process_of_its_own)


def test_where_no_high_number_is_to_be_had_the_low_one_stays(tmp_path: Path) -> None:
    def in_a_process_of_its_own() -> None:
        close_inherited()
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, hard))
        fd = os.open(tmp_path, os.O_RDONLY)
        assert files.out_of_the_way(fd) == fd

    in_child(in_a_process_of_its_own)

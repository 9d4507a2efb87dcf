"""Files that survive a crash: reserved room, holes, whole files put in place."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from taskd.posix import files


def test_reserving_takes_space_and_leaves_the_size(tmp_path: Path) -> None:
    with open(tmp_path / "file", "wb") as file:
        assert files.reserve(file.fileno(), 0, 100_000)
        status = os.fstat(file.fileno())
        assert status.st_size == 0
        assert status.st_blocks * 512 >= 100_000


def test_truncating_gives_reserved_space_back(tmp_path: Path) -> None:
    with open(tmp_path / "file", "wb") as file:
        for size in (10, 10, 9):
            os.pwrite(file.fileno(), b"x" * 10, 0)
            files.reserve(file.fileno(), 0, 100_000)
            assert os.fstat(file.fileno()).st_blocks * 512 >= 100_000
            os.ftruncate(file.fileno(), size)
            assert os.fstat(file.fileno()).st_blocks * 512 < 100_000


def test_punching_gives_space_back_and_leaves_size_and_the_rest(tmp_path: Path) -> None:
    with open(tmp_path / "file", "w+b") as file:
        os.pwrite(file.fileno(), b"a" * 4096 + b"b" * 81920 + b"c" * 10, 0)
        os.fsync(file.fileno())
        before = os.fstat(file.fileno())
        assert files.punch(file.fileno(), 4096, 81920)
        after = os.fstat(file.fileno())
        assert after.st_size == before.st_size
        assert (before.st_blocks - after.st_blocks) * 512 == 81920
        assert file.read() == b"a" * 4096 + bytes(81920) + b"c" * 10


def test_a_file_that_has_no_blocks_cannot_be_reserved_or_punched() -> None:
    fd = os.open("/proc/self/comm", os.O_RDWR)  # writable, and no place for anything
    try:
        with pytest.raises(OSError):
            if not files.reserve(fd, 0, 4096) and not files.punch(fd, 0, 4096):
                raise OSError("refused as it should be")
    finally:
        os.close(fd)


def test_offsets_above_four_gigabytes_are_not_cut(tmp_path: Path) -> None:
    with open(tmp_path / "file", "w+b") as file:
        far = 5 * 2**30
        os.pwrite(file.fileno(), b"x" * 8192, far)
        os.pwrite(file.fileno(), b"y" * 8192, far - 4 * 2**30)
        assert files.punch(file.fileno(), far, 4096)
        assert os.pread(file.fileno(), 8192, far) == bytes(4096) + b"x" * 4096
        assert os.pread(file.fileno(), 8192, far - 4 * 2**30) == b"y" * 8192


def test_writing_atomically_replaces_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "confirmed"
    path.write_bytes(b"old and longer")
    files.write_atomically(str(path), b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["confirmed"]


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_the_mode_is_exact_whatever_the_umask(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "confirmed"
    before = os.umask(0o077)
    try:
        files.write_atomically(str(path), b"x", mode)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_leftover_of_a_crash_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "confirmed.new").write_bytes(b"half of something much longer")
    files.write_atomically(str(tmp_path / "confirmed"), b"x")
    assert (tmp_path / "confirmed").read_bytes() == b"x"
    assert os.listdir(tmp_path) == ["confirmed"]


def test_data_is_on_disk_before_the_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, rename = os.fsync, os.rename

    def sync(fd: int) -> None:
        done.append("sync " + os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))
        fsync(fd)

    def move(source: str, target: str) -> None:
        done.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "rename", move)
    files.write_atomically(str(tmp_path / "confirmed"), b"x")
    assert done == ["sync confirmed.new", "rename", "sync " + tmp_path.name]


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "confirmed"
    path.write_bytes(b"old")

    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        files.write_atomically(str(path), b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["confirmed"]

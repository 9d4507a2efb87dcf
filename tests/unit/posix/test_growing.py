"""Cutting the middle out of a file while others append to it."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskd.posix import growing
from taskd.worker import loglimit

MOST = 256 * 1024
LINE = 32


def lines(first: int, last: int) -> bytes:
    return b"".join(b"%031d\n" % n for n in range(first, last))


def cut(path: Path, most: int = MOST) -> bool | None:
    return growing.cut(str(path), most, loglimit.note)


def whole(path: Path) -> bytes:
    """Everything that ``growing.read`` gives, in small parts."""
    fd, found, offset = os.open(path, os.O_RDONLY), b"", 0
    try:
        while True:
            start, part = growing.read(fd, offset, 1000)
            found += part
            offset = start + len(part)
            if not part:
                return found
    finally:
        os.close(fd)


def room(path: Path) -> int:
    return os.stat(path).st_blocks * 512


def test_a_file_within_its_limit_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(lines(0, MOST // LINE))
    assert cut(path) is False
    assert path.read_bytes() == lines(0, MOST // LINE)


def test_of_a_file_that_is_too_long_the_head_and_the_tail_stay_with_a_note_between(
    tmp_path: Path,
) -> None:
    path = tmp_path / "log"
    path.write_bytes(lines(0, 100_000))
    assert cut(path) is True
    assert room(path) <= MOST
    assert path.stat().st_size == 100_000 * LINE, "no offset has changed"
    head, _, rest = whole(path).partition(b"\n[taskd: ")
    gone, _, tail = rest.partition(b" bytes were cut out of the middle of this log here")
    assert lines(0, 100_000).startswith(head)
    tail = tail.partition(b"\n")[2]
    assert lines(0, 100_000).endswith(tail)
    assert len(head) + int(gone) + len(tail) == 100_000 * LINE
    assert len(tail) >= MOST // 2
    assert len(head) >= MOST // 4 - growing.NOTE


def test_a_file_that_goes_on_growing_is_cut_again_and_has_one_note(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for n in range(20):
        with path.open("ab") as file:
            file.write(lines(n * 10_000, (n + 1) * 10_000))
        cut(path)
        assert room(path) <= MOST
    text = whole(path)
    assert text.count(b"[taskd: ") == 1
    assert b"\0" not in text
    assert text.endswith(lines(199_000, 200_000))


def test_another_limit_leaves_one_note(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(lines(0, 100_000))
    for most in (MOST, 2 * MOST, MOST // 2):
        with path.open("ab") as file:
            file.write(lines(0, 20_000))
        assert cut(path, most) is True
        assert room(path) <= most
        assert whole(path).count(b"[taskd: ") == 1
        assert b"\0" not in whole(path)


def test_nothing_that_is_appended_meanwhile_is_lost_or_out_of_order(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"")
    done = threading.Event()

    def write() -> None:
        with path.open("ab", buffering=0) as file:
            for n in range(300):
                file.write(lines(n * 1000, (n + 1) * 1000))
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    while not done.is_set():
        cut(path)
    thread.join()
    cut(path)
    assert path.stat().st_size == 300_000 * LINE
    tail = whole(path).partition(b"[taskd: ")[2].partition(b"\n")[2]
    assert lines(0, 300_000).endswith(tail)


def test_what_is_no_file_is_not_touched(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert cut(tmp_path / "fifo") is False
    (tmp_path / "other").write_bytes(lines(0, 100_000))
    (tmp_path / "link").symlink_to("other")
    with pytest.raises(OSError, match="symbolic links"):
        cut(tmp_path / "link")


@pytest.fixture
def cannot_punch(tmp_path: Path) -> Iterator[Path]:
    """A directory on a file system that knows no holes."""
    if subprocess.run(["mount", "-t", "ramfs", "none", tmp_path], check=False).returncode:
        pytest.skip("needs the right to mount")
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_where_holes_cannot_be_punched_nothing_changes(cannot_punch: Path) -> None:
    path = cannot_punch / "log"
    path.write_bytes(lines(0, 100_000))
    with pytest.MonkeyPatch().context() as patch:
        patch.setattr(growing, "takes", lambda found: found.st_size)  # ramfs counts no blocks
        assert cut(path) is None
    assert path.read_bytes() == lines(0, 100_000)


def test_a_log_that_is_nearly_full_is_looked_at_sooner(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(lines(0, 1))
    assert loglimit.look(str(path), 1 << 30) == loglimit.LATEST
    assert loglimit.look(str(path), MOST) == loglimit.SOONEST
    assert loglimit.look(str(tmp_path / "none"), MOST) == loglimit.LATEST

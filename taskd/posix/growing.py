"""Keeps a file that other processes append to from filling the disk, while they go on writing.

Used in every process of the daemon. The middle of the file is given back to the file system as a
hole (fallocate(2), PUNCH_HOLE). The writers have the file open with O_APPEND: they never touch what
they have written, and no offset changes. Head and tail stay, with a note in front of the hole. No
state is kept: the file itself says where the hole is.

The size that ``ls -l`` shows goes on growing; the space on the disk (``du``) does not.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from taskd.posix import files, native

BLOCK = 4096
"""Bytes; the grain of holes."""

NOTE = 256
"""Bytes in front of the hole that hold the note."""

LEAST = 16 * BLOCK
"""Bytes; the smallest limit that leaves something to read."""


def cut(path: str, most: int, note: Callable[[int], str]) -> bool | None:
    """Shorten the file to less than ``most`` bytes of disk space if it takes more. True if it did.

    ``note`` makes the line for the number of bytes that are gone: ASCII, at most NOTE - 2 long.
    A quarter of ``most`` stays of the head, half of it of the tail. None if the file system
    cannot punch holes: then nothing has changed. Raises OSError.
    """
    most = max(most, LEAST)
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or takes(found) <= most:
            return False
        head, hole = most // 4 // BLOCK * BLOCK, os.lseek(fd, 0, os.SEEK_HOLE)
        if BLOCK <= hole < head and hole % BLOCK == 0:
            head = hole  # there is one already: it keeps its place, so that it needs no second note
        tail = (found.st_size - most // 2) // BLOCK * BLOCK
        if tail <= head:
            return False
        before = os.pread(fd, NOTE, head - NOTE)
        line = note(tail - head + NOTE).encode("ascii")
        os.pwrite(fd, b"\n" + line[: NOTE - 2].ljust(NOTE - 2) + b"\n", head - NOTE)
        if files.punch(fd, head, tail - head):
            return True
        os.pwrite(fd, before, head - NOTE)
        return None
    finally:
        native.close(fd)


def takes(found: os.stat_result) -> int:
    """Bytes of disk space that a file takes, without holes and without space reserved ahead."""
    return min(found.st_size, found.st_blocks * 512)


def read(fd: int, offset: int, limit: int) -> tuple[int, bytes]:
    """Up to ``limit`` bytes from ``offset`` on, or, if that is in a hole, from the hole's end on.

    Where they begin, and the bytes; none at the end of the file.
    """
    while data := os.pread(fd, limit, offset):
        hole = os.lseek(fd, offset, os.SEEK_HOLE)  # after reading: a hole may be cut meanwhile
        if hole > offset:
            return offset, data[: hole - offset]
        try:
            offset = os.lseek(fd, offset, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole to the end
            break
    return offset, b""

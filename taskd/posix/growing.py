"""A file that others append to without asking us, kept from filling the disk.

Used in every process of the daemon. The file's middle is given back to the file system as a hole
(fallocate(2), PUNCH_HOLE) while the writers go on: they hold it open with O_APPEND, so that what
has been written is nobody's but ours, and no offset changes. Its head and tail stay, and in front
of the hole stands a note. Nothing is remembered: where the hole is, the file itself says.

The size that ``ls -l`` shows goes on growing; the room on the disk (``du``) does not.
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
    """Shorten the file to less than ``most`` bytes of room if it takes more. True if it was.

    ``note`` makes the line for the number of bytes that are gone: ASCII, at most NOTE - 2 long.
    A quarter of ``most`` stays of the head, half of it of the tail. None if the file system
    cannot punch holes: then nothing has changed. Raises OSError.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    fd = os.open(path, flags)
    try:
        return _cut(fd, max(most, LEAST), note)
    finally:
        native.close(fd)


def takes(found: os.stat_result) -> int:
    """Bytes of room that a file takes: without its holes, nor what is allocated ahead."""
    return min(found.st_size, found.st_blocks * 512)


def _cut(fd: int, most: int, note: Callable[[int], str]) -> bool | None:
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode) or takes(found) <= most:
        return False
    head = _head(fd, most)
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


def _head(fd: int, most: int) -> int:
    """Where the hole begins, or is to begin: another limit must not leave two notes."""
    head = most // 4 // BLOCK * BLOCK
    hole = os.lseek(fd, 0, os.SEEK_HOLE)
    return hole if BLOCK <= hole < head and hole % BLOCK == 0 else head


def read(fd: int, offset: int, limit: int) -> tuple[int, bytes]:
    """Up to ``limit`` bytes from ``offset`` on, or, if that is in a hole, from the hole's end on.

    Where they begin, and the bytes; none at the end of the file.
    """
    while data := os.pread(fd, limit, offset):
        hole = os.lseek(fd, offset, os.SEEK_HOLE)  # after reading: it may be cut any time
        if hole > offset:
            return offset, data[: hole - offset]
        try:
            offset = os.lseek(fd, offset, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole to the end
            break
    return offset, b""

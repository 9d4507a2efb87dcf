"""The daemon's disk, filled up and emptied again."""

from __future__ import annotations

import contextlib
import os

BLOCK = 4096


class Disk:
    """The small file system of state and logs."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._ballast = os.path.join(folder, "ballast")

    def fill(self, left: int) -> None:
        """Leave about ``left`` bytes free; a second call changes what is left."""
        fd = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC)
        try:
            free = os.statvfs(self._folder)
            more = free.f_bavail * free.f_bsize - left
            end = os.fstat(fd).st_size
            if more > 0:
                self._take(fd, end, more)
        finally:
            os.close(fd)

    def _take(self, fd: int, end: int, more: int) -> None:
        """As others write meanwhile, what was free a moment ago may not be now."""
        size = more
        while size >= BLOCK:
            try:
                os.posix_fallocate(fd, end, size)
            except OSError:
                size //= 2
            else:
                end, more = end + size, more - size
                size = min(size, more)

    def empty(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._ballast)

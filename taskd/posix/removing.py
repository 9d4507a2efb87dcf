"""Removing a file, or a directory with all that is in it, in small steps.

Used in the master. No link is followed: what is in a directory is reached by the directory's
descriptor, so that nobody can put another tree in its place. However deep the tree is, three
descriptors are open: a directory within a directory is first moved up. Other file systems that are
mounted in it are left.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_UP = ".taskd-removed-"
"""Begins the names of directories that were moved up."""


def steps(path: str) -> Iterator[None]:
    """Remove what is at ``path``, if anything is: one entry a step. Raises OSError."""
    directory, name = os.path.split(path)
    above = os.open(directory, _DIRECTORY)
    try:
        with contextlib.suppress(FileNotFoundError):
            try:
                os.unlink(name, dir_fd=above)
            except IsADirectoryError:
                while not _is_removed(name, above):
                    yield from _emptied(name, above)
    finally:
        os.close(above)


def _is_removed(name: str, above: int) -> bool:
    try:
        os.rmdir(name, dir_fd=above)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True


def _opened(name: str, above: int) -> int:
    """A directory, which we may change from now on: a task may have taken itself the right to."""
    path = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
    try:
        if os.fstat(path).st_mode & 0o700 != 0o700:
            os.chmod(f"/proc/self/fd/{path}", 0o700)
    finally:
        os.close(path)
    return os.open(name, _DIRECTORY, dir_fd=above)


def _emptied(name: str, above: int) -> Iterator[None]:
    """Remove what is found in a directory. Raises OSError if nothing of it goes."""
    fd = _opened(name, above)
    try:
        found = 0
        with os.scandir(fd) as entries:
            for entry in entries:
                found += 1
                if entry.is_dir(follow_symlinks=False):
                    yield from _flattened(entry.name, fd)
                else:
                    os.unlink(entry.name, dir_fd=fd)
                yield
        if not found:
            raise OSError(errno.ENOTEMPTY, "something in it cannot be seen", name)
    finally:
        os.close(fd)


def _flattened(name: str, top: int) -> Iterator[None]:
    """Remove the directory ``name``; directories in it are moved to ``top``, where they are found
    later."""
    fd = _opened(name, top)
    try:
        with os.scandir(fd) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    os.close(_opened(entry.name, fd))
                    moved = _UP + os.urandom(8).hex()
                    os.rename(entry.name, moved, src_dir_fd=fd, dst_dir_fd=top)
                else:
                    os.unlink(entry.name, dir_fd=fd)
                yield
    finally:
        os.close(fd)
    _is_removed(name, top)  # else ``top`` is looked through once more

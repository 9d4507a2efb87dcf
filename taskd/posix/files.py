"""Files that survive a crash: reserved disk space, holes, files replaced as a whole, their names.

Used in every process of the daemon, for any content.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from taskd.posix import native

_KEEP_SIZE = 0x01  # linux/falloc.h
_PUNCH_HOLE = 0x02

_CANNOT = frozenset({errno.EOPNOTSUPP, errno.ENOSYS})

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Transient errors: disk full, quota used up, the process's limit of file size reached."""

READ_ONLY = frozenset({errno.EROFS})
"""A transient error: the file system is mounted read-only."""


def why_not(directory: str, size: int = 8192) -> OSError | None:
    """The error of writing ``size`` bytes into ``directory`` now; None: they can be written, or the
    file system cannot tell. Leaves nothing behind, even if this process is killed."""
    try:
        fd = os.open(directory, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except OSError as error:
        return None if error.errno in (*_CANNOT, errno.EISDIR) else error
    try:
        os.pwrite(fd, bytes(size), 0)
        os.fsync(fd)  # a network's file system may allocate only now
    except OSError as error:
        return error
    finally:
        native.close(fd)
    return None


def open_own(path: str, flags: int) -> int:
    """Open a private file of the daemon (made with mode 0600); close-on-exec.

    Raises OSError, also for a link (ELOOP) or another thing in its place that is no regular file.
    """
    flags |= os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe would wait for its other end
    fd = os.open(path, flags & ~os.O_TRUNC, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        if flags & os.O_TRUNC:
            os.ftruncate(fd, 0)
        if flags & os.O_CREAT:
            os.fchmod(fd, 0o600)  # whatever the umask, and the mode of a file that exists
    except OSError:
        native.close(fd)
        raise
    return fd


READ_MOST = 4 * 1024 * 1024
"""Bytes that a small file of the daemon has at most."""


def read_own(path: str) -> bytes:
    """The content of a small private file. Raises OSError, also if it is no regular file or is
    larger than READ_MOST."""
    with open(open_own(path, os.O_RDONLY), "rb") as file:
        data = file.read(READ_MOST + 1)
    if len(data) > READ_MOST:
        raise OSError(errno.EINVAL, "far too large to be what we wrote", path)
    return data


def make_own_directory(path: str) -> None:
    """Make ``path`` and its missing parents (mode 0700), unless it exists. Raises OSError, also for
    a link in its place."""
    try:
        os.makedirs(path, 0o700)
    except FileExistsError:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            raise OSError(errno.ENOTDIR, "not a directory", path) from None


def _allocate(fd: int, mode: int, offset: int, length: int) -> bool:
    from taskd.posix import libc

    while libc.fallocate(fd, mode, offset, length) != 0:
        error = libc.error("fallocate")
        if error.errno == errno.EINTR:
            continue
        if error.errno in _CANNOT:
            return False
        raise error
    return True


def reserve(fd: int, offset: int, length: int) -> bool:
    """Allocate disk space for that range without changing the file's size.

    Writing there later cannot fail with a full disk. Truncating the file, also to the size it has,
    gives the space back. False if the file system cannot reserve. Raises OSError (one of DISK_FULL)
    if there is no space; then nothing is allocated that was not before.
    """
    return _allocate(fd, _KEEP_SIZE, offset, length)


def punch(fd: int, offset: int, length: int) -> bool:
    """Give the disk space of that range back; it reads as zeros and the size stays.

    False if the file system cannot. A crash in the middle may leave any part of it done.
    """
    return _allocate(fd, _PUNCH_HOLE | _KEEP_SIZE, offset, length)


_HIGHEST = 1024
"""Much higher descriptors would make the kernel's descriptor table large."""


def out_of_the_way(fd: int) -> int:
    """Move ``fd`` to a high number, and close the low one; close-on-exec is set.

    For descriptors that user code must not take for its own: code that closes descriptors that it
    did not open, and then opens others, gets the lowest free numbers. If the limit does not allow a
    high number, ``fd`` stays.
    """
    import fcntl
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = _HIGHEST if soft == resource.RLIM_INFINITY else min(soft, _HIGHEST)
    try:
        moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, highest - 64)
    except OSError:
        return fd
    native.close(fd)
    return moved


def identity(fd: int) -> tuple[int, int]:
    """Device and inode of a descriptor's file. Raises OSError if it is closed."""
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


def at(path: str, follow: bool = False) -> tuple[int, int]:
    """The ``identity`` of the file at ``path``. Raises OSError."""
    found = os.stat(path, follow_symlinks=follow)
    return found.st_dev, found.st_ino


def is_at(path: str, file: tuple[int, int], follow: bool = False) -> bool:
    """Whether ``path`` leads to the file of that ``identity``; ``follow``: through links too."""
    try:
        return at(path, follow) == file
    except FileNotFoundError:
        return False


def sync_directory(path: str) -> None:
    """Make names that were created, renamed or removed in the directory survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        native.close(fd)


@contextlib.contextmanager
def named_when_whole(fd: int, temporary: str, path: str) -> Iterator[None]:
    """A new file, open as ``fd`` under the name ``temporary``, which the body fills and syncs: it
    then gets the name ``path``, which survives a power cut. On an error neither name stays, and
    ``fd`` is closed."""
    try:
        yield
        os.rename(temporary, path)
        sync_directory(os.path.dirname(path))
    except BaseException:
        for name in (temporary, path):
            with contextlib.suppress(OSError):
                os.unlink(name)
        native.close(fd)
        raise


def write_atomically(path: str, data: bytes, mode: int = 0o600) -> None:
    """Put a file with exactly ``data`` and ``mode`` in place: readers see the old one or this.

    On return it survives a power cut. On an error the old file stands unharmed. One writer at a
    time per path: the temporary name is the path with ``.new`` behind it, so that a crash leaves
    at most one such file and the next write replaces it.
    """
    temporary = path + ".new"
    try:
        fd = open_own(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            os.fchmod(fd, mode)  # whatever the umask, and whatever a leftover had
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(fd, rest) :]
            os.fsync(fd)
        finally:
            native.close(fd)
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_directory(os.path.dirname(path) or ".")

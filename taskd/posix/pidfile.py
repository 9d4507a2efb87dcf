"""The file that says which process is the daemon, for people and scripts.

Written, locked and removed by a detached daemon itself. Its lock (``locks``) tells a stale file
from a live one: whoever is killed leaves the file and loses the lock. What counts between daemons
is the state directory's lock; this one is held beside it.
"""

from __future__ import annotations

import contextlib
import os

from taskd.errors import ConfigError
from taskd.posix import files, locks, native

VARIABLE = "TASKD_DETACHED"
"""Names the file, for a daemon that runs in the background."""


def wanted() -> str | None:
    """Where this daemon's is to be; None: it is not detached, and has none."""
    return os.environ.get(VARIABLE)


def take(path: str) -> int:
    """Write our pid there; returns the descriptor that holds the lock, to be kept open.

    The file is whole at any moment. Raises ConfigError if another process has its lock, OSError.
    """
    if (pid := _holder(path)) is not None:
        raise ConfigError(f"{path} is locked by another process (pid {pid}): is it a taskd?")
    fresh = f"{path}.new"
    fd = files.open_own(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        os.fchmod(fd, 0o644)
        locks.take(fd)
        os.write(fd, b"%d\n" % os.getpid())
        os.rename(fresh, path)
    except locks.Held as held:
        native.close(fd)
        raise ConfigError(f"another taskd (pid {held.pid}) is just starting at {path}") from None
    except OSError:
        native.close(fd)
        raise
    return fd


def _holder(path: str) -> int | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        return locks.holder(fd)
    finally:
        native.close(fd)


def remove(path: str) -> None:
    """The daemon ends: the file goes, with its lock."""
    with contextlib.suppress(OSError):
        os.unlink(path)

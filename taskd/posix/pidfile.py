"""The pid file of a detached daemon, for people and scripts.

The daemon itself writes, locks and removes it. The lock (``locks``) tells a stale file from a live
one: a daemon that is killed leaves the file and loses the lock. Only the state directory's lock
keeps two daemons apart; this lock is held beside it.
"""

from __future__ import annotations

import contextlib
import os

from taskd.errors import ConfigError
from taskd.posix import files, locks, native

VARIABLE = "TASKD_DETACHED"
"""Environment variable with the path of the pid file; set for a detached daemon."""


def wanted() -> str | None:
    """The path of this daemon's pid file; None: it is not detached, and has none."""
    return os.environ.get(VARIABLE)


def take(path: str) -> int:
    """Write our pid there; returns the descriptor that holds the lock, to be kept open.

    Readers never see a part of the file. Raises ConfigError if another process has its lock;
    OSError.
    """
    pid = None
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            pid = locks.holder(fd)
        finally:
            native.close(fd)
    if pid is not None:
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


def remove(path: str) -> None:
    """Remove the file, when the daemon ends."""
    with contextlib.suppress(OSError):
        os.unlink(path)

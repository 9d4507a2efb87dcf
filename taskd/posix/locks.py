"""Locks of files (POSIX record locks) and directories (flock): which process owns each.

Used by workers (each locks its slot), by the master (it locks its state directory, and asks for the
owners of slots) and by the command line. A record lock covers the whole file, to any size. It
belongs to the *process*:

* children that user code forks do not have it, nor do they keep it alive;
* it survives ``execve`` if the descriptor does;
* ``F_GETLK`` tells the owner's pid without taking the lock.

Invariant: a process that takes a lock opens that file once, never duplicates the descriptor and
never closes any descriptor of that file before it ends. Closing *any* descriptor of the file, in
any thread, also a close-on-exec duplicate at exec, drops the lock at once and silently. For the
same reason nothing here opens or closes anything.

The kernel does not tell a process about its own lock.

A directory has no record locks, and is locked by flock(2): ``take_directory``. That lock belongs to
the open file, and ends with its last descriptor in any process: keep the descriptor close-on-exec,
except for an exec that is to keep the lock.
"""

from __future__ import annotations

import fcntl
import os
import struct

from taskd.posix import native

_FLOCK = struct.Struct("@hhqqi0q")
"""struct flock with 64-bit offsets: l_type, l_whence, l_start, l_len, l_pid, in C's alignment."""

_WHOLE_FILE = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


class Held(Exception):
    """Another process has the lock: ``pid``, in our pid namespace (0: it is not in it)."""

    def __init__(self, pid: int) -> None:
        super().__init__(f"the lock is held by process {pid}")
        self.pid = pid


def take(fd: int) -> None:
    """Lock the file of ``fd`` (open for writing) for this process, without waiting.

    Raises Held if another process has it, OSError if the file system knows no locks.
    """
    while True:
        try:
            fcntl.fcntl(fd, fcntl.F_SETLK, _WHOLE_FILE)
            return
        except (BlockingIOError, PermissionError):  # EAGAIN or EACCES: both mean "held"
            pid = holder(fd)
        if pid is not None:  # else it was released between the two calls: try again
            raise Held(pid)


def holder(fd: int) -> int | None:
    """The pid of the other process that has the lock, or None if no other process has it.

    Changes nothing; ``fd`` may be open for reading only. A holder outside our pid namespace is told
    as 0, which is a holder all the same.
    """
    kind, *_, pid = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, _WHOLE_FILE))
    return None if kind == fcntl.F_UNLCK else int(pid)


def take_directory(path: str) -> int:
    """Lock the directory itself, which cannot be removed as long as it has entries. Returns the
    descriptor that has the lock.

    Raises Held if another process has it, OSError (also where the file system has no such locks:
    EBADF, ENOTSUP or ENOLCK on a network's).
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        place = f":{os.fstat(fd).st_ino}"
        with open("/proc/locks", encoding="ascii", errors="replace") as file:
            # proc_locks(5): ``1: FLOCK ADVISORY WRITE pid major:minor:inode 0 EOF``
            found = (words for words in map(str.split, file) if "FLOCK" in words[1:2])
            pid = next((int(words[4]) for words in found if words[5].endswith(place)), 0)
        native.close(fd)
        raise Held(pid) from None
    except OSError:
        native.close(fd)
        raise
    return fd

"""A task's stdout and stderr: they go straight into its log file, never through the master.

What cannot be written because the disk is full is dropped, and the log says so once there is room:
a log that cannot be written must not end a task. (A program that a task starts writes to the
descriptors itself, and gets the error.)

Native code has buffers of its own, in C's stdio. They are flushed whenever descriptors 1 and 2
change to another file, and before the process ends: else a task's lines would be in the next one's
log, or lost.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from os import _exit  # the original, also where a task has replaced os._exit
from typing import Any, NoReturn

from taskd.posix import files, libc, native

DROPPED = files.DISK_FULL | files.READ_ONLY | {errno.EIO}
"""Errors of writing a log that the task does not get."""


class _Lenient(io.FileIO):
    """Writes to a descriptor and drops what does not fit: ``_lost`` bytes since the last write that
    did."""

    _lost = 0

    def write(self, data: Any, /) -> int:
        try:
            if self._lost:
                super().write(f"[taskd: {self._lost} bytes found no room here]\n".encode())
                self._lost = 0
            return super().write(data) or 0
        except OSError as error:
            if error.errno not in DROPPED:
                raise
            self._lost += len(data)
            return len(data)


def be_lenient() -> None:
    """From now on ``sys.stdout`` and ``sys.stderr`` raise neither for a full disk nor for
    characters that their encoding lacks. Called before the app is imported, which may keep a
    reference to them. Native code writes line by line. A stream that was replaced or
    closed is left as it is."""
    libc.print_by_line()
    for fd, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if type(stream) is io.TextIOWrapper:
            stream.flush()
            buffered = io.BufferedWriter(_Lenient(fd, "w", closefd=False))
            made = io.TextIOWrapper(
                buffered, stream.encoding, "backslashreplace", line_buffering=True
            )
            setattr(sys, name, made)


def open_log(path: str) -> int:
    """Open the log at ``path`` for appending; its directory is made if it is gone. Raises OSError,
    also if a link or a pipe is at ``path``."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    return files.open_own(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)


class Output:
    """Descriptors 1 and 2 write to the end of the log at ``path`` within the block.

    Its descriptors are all opened when it is made: raises OSError there, and leaves none open.
    """

    def __init__(self, path: str) -> None:
        self._log = open_log(path)
        self._before: list[SavedDescriptor] = []
        try:
            for fd in (1, 2):
                self._before.append(SavedDescriptor(fd))
        except OSError:
            native.close(self._log)
            for held in self._before:
                held.put_back()
            raise

    def __enter__(self) -> None:
        flush()
        os.dup2(self._log, 1)
        os.dup2(self._log, 2)
        native.close(self._log)
        # A printed line is in the log at once: a follower sees it, and a kill does not lose it.
        streams: tuple[Any, ...] = (sys.stdout, sys.stderr)
        for stream in streams:
            if issubclass(
                type(stream), io.TextIOWrapper
            ):  # an app's object may lie about its class
                with suppress(BaseException):  # the app has closed it
                    stream.reconfigure(line_buffering=True)

    def __exit__(self, *_: object) -> None:
        flush()
        for held in self._before:
            held.put_back()


class SavedDescriptor:
    """A copy of a descriptor, to be put back at its number later: /dev/null is put there if the
    descriptor was not open, or if user code has closed the copy. Raises OSError out of descriptors.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._copy, self._file = -1, (-1, -1)
        try:
            self._copy = files.out_of_the_way(os.dup(fd))
            self._file = files.identity(self._copy)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise

    def put_back(self) -> None:
        copy = self._copy
        try:
            is_ours = files.identity(copy) == self._file
        except OSError:
            is_ours = False
        if not is_ours:
            copy = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        if copy == self._fd:  # it was closed, and the lowest of all
            os.set_inheritable(copy, True)
            return
        os.dup2(copy, self._fd)
        native.close(copy)


def leave(status: int) -> NoReturn:
    """End this process at once, as ``os._exit`` does; what was printed is written first."""
    try:
        flush()
    finally:
        _exit(status)


def leave_if_child(pid: int) -> None:
    """End this process unless it is ``pid``: a child that the app's code has forked must not go on
    as a second worker."""
    if os.getpid() != pid:
        leave(0)


def flush() -> None:
    """Flush what Python and native code have printed to the present descriptors 1 and 2."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(BaseException):  # the task may have closed or replaced them
            stream.flush()
    libc.flush_streams()

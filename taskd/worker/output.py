"""Where a task's stdout and stderr go: straight into its log file, never through the master.

What finds no room there is dropped, and the log says so once there is room: that a log cannot be
written must not end a task. (A program that a task starts has the descriptors themselves, and gets
the error.)

Native code has buffers of its own, in C's stdio. They are written out whenever descriptors 1 and 2
turn to another file, and before the process ends: else a task's lines would stand in the log of the
next one, or nowhere.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from os import _exit  # also where a task has put something else in its place
from typing import Any, NoReturn

from taskd.posix import files, libc, native

DROPPED = files.DISK_FULL | files.READ_ONLY | {errno.EIO}
"""Errors of a log that are nothing to the task."""


class _Lenient(io.FileIO):
    """A descriptor that takes everything; ``_lost`` bytes of it did not get there since."""

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
    """From now on ``sys.stdout`` and ``sys.stderr`` take everything, also what their encoding has
    no characters for: before the app is imported, which may keep them. Native code writes line by
    line. Safe where a caller has replaced or closed them."""
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
    """The log at ``path``, to write to its end; in a directory made anew if it is gone. Raises
    OSError, also for a link or a pipe in its place."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    return files.open_own(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)


class Output:
    """Descriptors 1 and 2 write to the end of the log at ``path`` within the block.

    Whatever that needs is there once it is made: raises OSError then, and leaves nothing open.
    """

    def __init__(self, path: str) -> None:
        self._log = open_log(path)
        self._before: list[Held] = []
        try:
            for fd in (1, 2):
                self._before.append(Held(fd))
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
        _by_line()

    def __exit__(self, *_: object) -> None:
        flush()
        for held in self._before:
            held.put_back()


class Held:
    """What a descriptor stood for, to be put back there; /dev/null, if there was nothing, or if
    user code has closed our copy of it. Raises OSError out of descriptors."""

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
        copy = self._copy if self._is_ours() else os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        if copy == self._fd:  # it was closed, and the lowest of all
            os.set_inheritable(copy, True)
            return
        os.dup2(copy, self._fd)
        native.close(copy)

    def _is_ours(self) -> bool:
        try:
            return files.identity(self._copy) == self._file
        except OSError:
            return False


def _by_line() -> None:
    """A printed line is in the log: who follows it sees it, and a kill does not lose it."""
    streams: tuple[Any, ...] = (sys.stdout, sys.stderr)
    for stream in streams:
        if issubclass(type(stream), io.TextIOWrapper):  # what an app has put there may lie
            with suppress(BaseException):  # the app has closed it
                stream.reconfigure(line_buffering=True)


def leave(status: int) -> NoReturn:
    """End this process at once, as ``os._exit`` does; what was printed is written first."""
    try:
        flush()
    finally:
        _exit(status)


def flush() -> None:
    """Write what has been printed, by Python and by native code, to where it goes now."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(BaseException):  # the task may have closed or replaced them, as it likes
            stream.flush()
    libc.flush_streams()

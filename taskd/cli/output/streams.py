"""Standard input, output and error of a command: all exist, and a failed write is told as that.

What can go wrong: the caller has closed descriptor 0, 1 or 2 (then Python has no such stream, and
the next file that is opened gets its number), or the output goes to a full disk or to a reader that
is gone. An OSError of the output must not be taken for one of the command itself: so standard
output raises ``CannotWrite``. A failed write to standard error is ignored; the exit status tells.
"""

from __future__ import annotations

import io
import os
import select
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_stood_in: set[int] = set()
"""Descriptors that the caller had closed."""


class CannotWrite(OSError):
    """Writing to standard output failed, but not since its reader is gone (BrokenPipeError)."""


class _Whole(io.FileIO):
    """Waits if the descriptor is non-blocking, as another program may leave a shell's terminal."""

    def write(self, data: ReadableBuffer) -> int:
        while (written := super().write(data)) is None:
            select.select([], [self], [])
        return written


class _Output(_Whole):
    def write(self, data: ReadableBuffer) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise CannotWrite(error.errno, error.strerror) from None


class _Errors(_Whole):
    def write(self, data: ReadableBuffer) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(memoryview(data))


def prepare() -> None:
    """Make all three exist. In place of one that the caller closed stands one that cannot be read
    or written either."""
    for fd, how in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDONLY)):
        try:
            os.fstat(fd)
        except OSError:
            nowhere = os.open(os.devnull, how)  # the lowest that is free: this one
            assert nowhere == fd
            os.set_inheritable(fd, True)
            _stood_in.add(fd)
    sys.stdin = sys.stdin or io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)))
    sys.stdout = _over(_Output, 1, sys.stdout, sys.__stdout__)
    sys.stderr = _over(_Errors, 2, sys.stderr, sys.__stderr__)


def give_to_a_daemon() -> None:
    """Discard from now on what is written to a stream that the caller closed: the daemon's children
    inherit it, and must not fail."""
    for fd in _stood_in:
        discard(fd)


def discard(fd: int) -> None:
    """Discard what is written to ``fd`` from now on, also what a stream has buffered for it: the
    interpreter writes that when it exits, and would complain."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, fd)
    os.close(nowhere)


def _over(kind: type[io.FileIO], fd: int, now: TextIO | None, own: TextIO | None) -> TextIO:
    """A stream of that kind in place of the interpreter's ``own``; one that a caller of ``main``
    has put there (``now``) stays. Characters that the encoding lacks are written escaped."""
    if now is not None and now is not own:
        return now
    if now is not None:
        now.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(kind(fd, "w", closefd=False)),
        encoding=now.encoding if now else "utf-8",
        errors="backslashreplace",
        line_buffering=fd == 2 or bool(now and now.isatty()),
    )

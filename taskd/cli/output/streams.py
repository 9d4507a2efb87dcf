"""The streams of a command: each is there, and a failure to write its output is told as that.

What can go wrong: a caller has closed descriptor 0, 1 or 2 (then Python has no such stream, and
the next file that is opened gets its number), or what is written goes to a full disk or to a reader
that is gone. Only who writes knows that an OSError is of the output and not of something that the
command did: so standard output raises an error of its own kind. What cannot be written to standard
error nobody could be told of; the exit status must do.
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
    """Standard output took something no more; not of a reader that is gone (BrokenPipeError)."""


class _Whole(io.FileIO):
    """Waits where others have made the descriptor non-blocking, as a shell's terminal may be."""

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
    """Have all three. What stands in for one that the caller closed fails as that would."""
    _stand_in(0, os.O_WRONLY)
    _stand_in(1, os.O_RDONLY)
    _stand_in(2, os.O_RDONLY)
    sys.stdin = sys.stdin or io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)))
    sys.stdout = _over(_Output, 1, sys.stdout, sys.__stdout__)
    sys.stderr = _over(_Errors, 2, sys.stderr, sys.__stderr__)


def give_to_a_daemon() -> None:
    """What is written to a stream that the caller closed goes nowhere from now on: the children of
    a daemon inherit them."""
    for fd in _stood_in:
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, fd)
        os.close(nowhere)


def forget(stream: TextIO) -> None:
    """What is still buffered goes nowhere, so that the interpreter's exit is quiet too."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _stand_in(fd: int, how: int) -> None:
    try:
        os.fstat(fd)
    except OSError:
        nowhere = os.open(os.devnull, how)  # the lowest that is free: this one
        assert nowhere == fd
        os.set_inheritable(fd, True)
        _stood_in.add(fd)


def _over(kind: type[io.FileIO], fd: int, now: TextIO | None, own: TextIO | None) -> TextIO:
    """A stream of that kind in place of the interpreter's own; what somebody else has put there
    (``now``) stays. A name that the terminal's encoding lacks is shown escaped."""
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

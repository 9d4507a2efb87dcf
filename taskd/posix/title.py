"""The title of this process, which ``ps`` and ``top`` show in place of its command line.

Used in the master, zygotes and workers. The kernel shows the bytes at the place where it put the
arguments at exec (/proc/PID/stat, arg_start and arg_end), and apart from them a short name
(``comm``, 15 bytes, prctl(2)). Python does not read that place again after its start. The place is
as long as the arguments: a process that will show a title is started with ROOM. Never put secrets
into a title: every user of the machine can read it.
"""

from __future__ import annotations

import contextlib
import functools
import os

from taskd.posix import process

_PR_SET_NAME = 15

ROOM = " " * 120
"""A last argument, as room for a title."""

ROOM_IN_PYTHON = ("-X", "title=" + " " * 64)
"""Options that Python ignores, as room for a title where a program takes no further argument."""

MASTER, ZYGOTE, WORKER = "taskd: master", "taskd: zygote", "taskd: worker"


def show(short: str, more: str = "") -> None:
    """Set the title to ``short`` (at most 15 characters) and, as far as there is room, ``more``.

    If that is not possible, nothing happens.
    """
    from taskd.posix import libc

    libc.prctl(_PR_SET_NAME, _bytes(short), 0, 0, 0)
    start, length = _found()
    if length:
        import ctypes

        text = _bytes(f"{short} {more}" if more else short)[: length - 1]
        ctypes.memmove(start, text.ljust(length, b"\0"), length)


def name(short: str) -> None:
    """Set the short name only, which `pgrep` finds (at most 15 characters): as ``show`` does first,
    without the import of ctypes."""
    with contextlib.suppress(OSError), open("/proc/self/comm", "wb", buffering=0) as file:
        file.write(_bytes(short))


def _bytes(text: str) -> bytes:
    """In ASCII, on one line, without control characters."""
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in text).encode("ascii")


@functools.cache
def _found() -> tuple[int, int]:
    """Address and length of the arguments; a length of 0: they must not be written to."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        import ctypes

        fields = process.stat(os.getpid()) or []
        start, end = int(fields[45]), int(fields[46])
        with open("/proc/self/cmdline", "rb") as file:
            shown = file.read()
        is_shown = 0 < start < end and len(shown) == end - start
        # Else they are hidden from us, or the app shows a title of its own there.
        if is_shown and ctypes.string_at(start, end - start) == shown:
            return start, end - start
    return 0, 0

"""What ``ps`` and ``top`` show of this process: a name in place of its command line.

Used in the master, zygotes and workers. The kernel shows whatever stands where it put the arguments
at exec (/proc/PID/stat, arg_start and arg_end), and its short name (``comm``, 15 bytes, prctl(2))
apart. Nothing reads the arguments there any more once Python has started. The place is as long as
they were: who starts a process that will show a title gives it ROOM. Never put secrets into a
title: every user of the machine reads it.
"""

from __future__ import annotations

import contextlib

_PR_SET_NAME = 15

ROOM = " " * 120
"""A last argument that gives a title room."""

ROOM_IN_PYTHON = ("-X", "title=" + " " * 64)
"""Words for Python itself, which ignores them: room where a program takes no further argument."""

MASTER, ZYGOTE, WORKER = "taskd: master", "taskd: zygote", "taskd: worker"

_place: tuple[int, int] | None = None


def show(short: str, more: str = "") -> None:
    """Be shown as ``short`` (at most 15 characters) and, where there is room, ``more`` behind it.

    Where that cannot be done, nothing happens.
    """
    from taskd.posix import libc

    libc.prctl(_PR_SET_NAME, _bytes(short), 0, 0, 0)
    start, length = _found()
    if length:
        import ctypes

        text = _bytes(f"{short} {more}" if more else short)[: length - 1]
        ctypes.memmove(start, text.ljust(length, b"\0"), length)


def name(short: str) -> None:
    """Be found as that by `pgrep` (at most 15 characters): what ``show`` does first, without its
    import."""
    with contextlib.suppress(OSError), open("/proc/self/comm", "wb", buffering=0) as file:
        file.write(_bytes(short))


def _bytes(text: str) -> bytes:
    """In ASCII, on one line, and without what a terminal would obey."""
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in text).encode("ascii")


def _found() -> tuple[int, int]:
    """Where the arguments stand and how long they are; a length of 0: nowhere that is safe."""
    global _place
    if _place is None:
        try:
            _place = _look()
        except (OSError, ValueError, IndexError):
            _place = 0, 0
    return _place


def _look() -> tuple[int, int]:
    import ctypes

    with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:
        text = file.read()
    fields = text[text.rindex(")") + 2 :].split()
    start, end = int(fields[45]), int(fields[46])
    with open("/proc/self/cmdline", "rb") as file:
        shown = file.read()
    if not 0 < start < end or len(shown) != end - start:
        return 0, 0  # hidden from us, or the app shows a title of its own there
    if ctypes.string_at(start, end - start) != shown:
        return 0, 0
    return start, end - start

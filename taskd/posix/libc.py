"""Functions of the C library that Python does not offer, by ctypes.

Imported inside the functions that need it: loading ctypes takes 2 ms, which must not be part of a
deploy's pause.
"""

from __future__ import annotations

import ctypes
import os

_library = ctypes.CDLL(None, use_errno=True)

prctl = _library.prctl
getsockopt = _library.getsockopt
mallopt = getattr(_library, "mallopt", None)

fallocate = getattr(_library, "fallocate64", None) or _library.fallocate  # 64-bit offsets
fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
fallocate.restype = ctypes.c_int

_LINE_BUFFERED = 1  # _IOLBF in <stdio.h>, of glibc and of musl

fflush, _setvbuf, _purge = _library.fflush, _library.setvbuf, _library.__fpurge
fflush.argtypes = _purge.argtypes = (ctypes.c_void_p,)
_setvbuf.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_size_t)


def _streams() -> list[int | None]:
    """C's stdout and stderr, which native code prints to, past Python's."""
    return [ctypes.c_void_p.in_dll(_library, name).value for name in ("stdout", "stderr")]


def print_by_line() -> None:
    """Have what native code prints written line by line, so that a kill does not lose it."""
    for stream in _streams():
        _setvbuf(stream, None, _LINE_BUFFERED, 0)


def flush_streams() -> None:
    """Write what native code has printed to the present files of descriptors 1 and 2. What cannot
    be written is dropped: it must not go to the files that these descriptors get next.

    Not ``fflush(NULL)``, which waits for another thread that reads from a file."""
    for stream in _streams():
        if fflush(stream) != 0:
            _purge(stream)


def error(what: str) -> OSError:
    """The OSError of the call that has just failed in this thread (errno)."""
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")

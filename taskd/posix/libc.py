"""What Python itself does not offer of the C library, by ctypes.

Imported inside the functions that need it: loading ctypes is 2 ms that the master's start-up, which
is the pause of a deploy, can do without.
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

_fflush, _setvbuf, _purge = _library.fflush, _library.setvbuf, _library.__fpurge
_fflush.argtypes = _purge.argtypes = (ctypes.c_void_p,)
_setvbuf.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_size_t)


def _streams() -> list[int | None]:
    """C's own stdout and stderr, which native code prints to past Python's."""
    return [ctypes.c_void_p.in_dll(_library, name).value for name in ("stdout", "stderr")]


def print_by_line() -> None:
    """What native code prints is written line by line, so that a kill does not lose it."""
    for stream in _streams():
        _setvbuf(stream, None, _LINE_BUFFERED, 0)


def flush_streams() -> None:
    """Write what native code has printed to where descriptors 1 and 2 lead now. What cannot be
    written is dropped: it must not come out at the next place that they lead to.

    Not ``fflush(NULL)``, which waits for whoever reads from another file in another thread."""
    for stream in _streams():
        if _fflush(stream) != 0:
            _purge(stream)


def flush_all() -> None:
    """Write what native code buffers for any of its files, before the process ends. May wait for a
    thread that reads from one of them."""
    _fflush(None)


def error(what: str) -> OSError:
    """The error of the call that has just failed, in this thread."""
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")

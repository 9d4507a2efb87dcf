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

fallocate = getattr(_library, "fallocate64", None) or _library.fallocate  # 64-bit offsets
fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
fallocate.restype = ctypes.c_int


def error(what: str) -> OSError:
    """The error of the call that has just failed, in this thread."""
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")

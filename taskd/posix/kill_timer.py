"""A deadline after which the kernel kills this process, whatever its code does until then.

A kernel timer (timer_create(2)) that sends SIGKILL: no handler, no signal mask and no lock of the
interpreter delays it, and no other process has to be alive. Children do not inherit it; an exec
ends it.
"""

from __future__ import annotations

import ctypes

_CLOCK_MONOTONIC = 1
_SIGEV_SIGNAL = 0
_SIGKILL = 9


_timers = ctypes.CDLL(None)
if not hasattr(_timers, "timer_create"):
    _timers = ctypes.CDLL("librt.so.1")  # glibc before 2.34


class _Event(ctypes.Structure):
    """``struct sigevent``, which the kernel takes to be 64 bytes long."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signo", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("rest", ctypes.c_char * 64),
    )


class _Times(ctypes.Structure):
    """``struct itimerspec``."""

    _fields_ = (
        ("interval", ctypes.c_long * 2),
        ("value", ctypes.c_long * 2),
    )


def die_in(seconds: float) -> bool:
    """SIGKILL to this process in ``seconds``. False if the kernel has no timer left."""
    timer = ctypes.c_void_p()
    event = _Event(None, _SIGKILL, _SIGEV_SIGNAL, b"")
    if _timers.timer_create(_CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(timer)) != 0:
        return False
    whole = int(seconds)
    times = _Times((0, 0), (whole, int((seconds - whole) * 1_000_000_000)))
    return bool(_timers.timer_settime(timer, 0, ctypes.byref(times), None) == 0)

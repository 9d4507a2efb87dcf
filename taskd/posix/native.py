"""Primitives of Python and of the system, as they are before an app is imported.

Used in zygotes and workers, which import this module first. An app may replace primitives (gevent
and eventlet do): then a thread runs only while the task's code waits, and only that library's loop
learns of a child's death. What taskd does beside a task must work while the task computes, so taskd
takes its threads, locks, sleeps, sockets, forks and signal handlers from here. The app and its
tasks keep theirs.
"""

from __future__ import annotations

from _thread import (
    TIMEOUT_MAX,
    LockType,
    RLock,
    allocate_lock as allocate_lock,
    start_new_thread as start_new_thread,
)
from collections.abc import Callable
from os import (
    close as close,
    fork as fork,
    posix_spawn as posix_spawn,
    read as read,
    waitpid as waitpid,
    write as write,
)
from select import POLLIN as POLLIN, poll as poll
from signal import getsignal as getsignal, signal as handle_signal
from socket import socket as socket
from time import monotonic as monotonic, sleep as sleep
from typing import TypeVar

__all__ = ["Condition", "handle_signal"]

T = TypeVar("T")


class Condition:
    """The part of ``threading.Condition`` that taskd needs, with native locks; reentrant, since a
    signal handler or a destructor may run at any line."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._waiters: list[LockType] = []

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def wait_for(self, holds: Callable[[], T], timeout: float | None = None) -> T:
        """Wait until ``holds()``, which is called after each ``notify_all``, is true; returns its
        last value. Call it with the lock held; the wait releases the lock."""
        until = None if timeout is None else monotonic() + timeout
        while not (found := holds()):
            left = -1 if until is None else min(until - monotonic(), TIMEOUT_MAX)
            if until is not None and left <= 0:
                break
            waiter = allocate_lock()
            waiter.acquire()
            self._waiters.append(waiter)
            held = self._lock._release_save()  # type: ignore[attr-defined]
            try:
                waiter.acquire(True, left)
            finally:
                self._lock._acquire_restore(held)  # type: ignore[attr-defined]
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
        return found

    def notify_all(self) -> None:
        """Call with the lock held."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.release()

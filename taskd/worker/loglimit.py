"""Limits the size of a task's log: a log that is too long has its middle cut out while it grows.

Runs in workers, in a thread of its own. The task and its programs write straight to the file, so
the thread checks the size, at intervals in which a writer of FASTEST cannot pass the limit. A
faster one passes it until the next check; when the attempt is over the master checks once more. The
thread holds no descriptor between two checks: the task may close all descriptors, and the number
would then be another file.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from taskd.posix import growing, native

FASTEST = 256 * 1024 * 1024
"""Bytes per second that a task is assumed to write at most."""

SOONEST, LATEST = 0.05, 0.5
"""Seconds between two checks of a log that is nearly full, and of one that is nearly empty."""


def note(gone: int) -> str:
    """The line in a log that replaces the middle."""
    return (
        f"[taskd: {gone} bytes were cut out of the middle of this log here, to keep it within "
        "[logs] max_size]"
    )


class LogLimit:
    """Limits the log of the current attempt, if there is one."""

    def __init__(self) -> None:
        self._changed = native.Condition()
        self._log: tuple[str, int] | None = None
        native.start_new_thread(self._run, ())

    @contextmanager
    def on(self, path: str, most: int | None) -> Iterator[None]:
        """Keep the log at ``path`` within ``most`` bytes during the block; None: no limit."""
        self._watch(None if most is None else (path, most))
        try:
            yield
        finally:
            self._watch(None)

    def _watch(self, log: tuple[str, int] | None) -> None:
        with self._changed:
            self._log = log
            self._changed.notify_all()

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._log is not None)
                log = self._log
            if log is not None:
                seconds = look(*log)
                with self._changed:
                    self._changed.wait_for(lambda: self._log is not log, timeout=seconds)  # noqa: B023


def look(path: str, most: int) -> float:
    """Cut the log if it is too long; returns the seconds until the next check."""
    try:
        found = os.stat(path, follow_symlinks=False)
        if growing.takes(found) > most and growing.cut(path, most, note) is not None:
            found = os.stat(path, follow_symlinks=False)
    except OSError:  # for example the task has removed it: the log cannot be read any more
        return LATEST
    return min(LATEST, max(SOONEST, (most - growing.takes(found)) / FASTEST))

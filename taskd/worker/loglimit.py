"""The limit of a task's log: what is too much of it is cut out of its middle while it grows.

Runs in workers, in a thread of its own. The task and its programs write straight to the file, so
that somebody has to look: at intervals that a writer of FASTEST cannot outrun. A faster one takes
more room for as long as that; when the attempt is over the master looks once more. The thread
holds no descriptor between two looks: a task that closes all of them must not leave it with a
number that has come to mean another file.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from taskd.posix import growing, native

FASTEST = 256 * 1024 * 1024
"""Bytes per second that a task is reckoned to write at most."""

SOONEST, LATEST = 0.05, 0.5
"""Seconds between two looks at a log that is nearly full, and at one that is nearly empty."""


def note(gone: int) -> str:
    """What stands in a log where its middle was."""
    return (
        f"[taskd: {gone} bytes were cut out of the middle of this log here, to keep it within "
        "[logs] max_size]"
    )


class LogLimit:
    """Watches the log of the attempt at hand, if there is one."""

    def __init__(self) -> None:
        self._changed = native.Condition()
        self._log: tuple[str, int] | None = None

    def start(self) -> None:
        native.start_new_thread(self._run, ())

    @contextmanager
    def on(self, path: str, most: int | None) -> Iterator[None]:
        """Keep the log at ``path`` within ``most`` bytes meanwhile; None: without a limit."""
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
                self._rest(log, look(*log))

    def _rest(self, log: tuple[str, int], seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._log is not log, timeout=seconds)


def look(path: str, most: int) -> float:
    """Cut the log if it is too long; seconds until it must be looked at again."""
    try:
        found = os.stat(path, follow_symlinks=False)
        if growing.takes(found) > most and growing.cut(path, most, note) is not None:
            found = os.stat(path, follow_symlinks=False)
    except OSError:  # the task removed it, say: what is written now is nobody's to read
        return LATEST
    room = most - growing.takes(found)
    return min(LATEST, max(SOONEST, room / FASTEST))

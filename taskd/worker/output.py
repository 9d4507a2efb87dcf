"""Where a task's stdout and stderr go: straight into its log file, never through the master."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def into(path: str) -> Iterator[None]:
    """Descriptors 1 and 2 write to the end of ``path`` meanwhile. Raises OSError."""
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    before = os.dup(1), os.dup(2)
    try:
        _flush()
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        _by_line()
        yield
    finally:
        _flush()
        for fd, original in zip((1, 2), before, strict=True):
            os.dup2(original, fd)
            os.close(original)


def _by_line() -> None:
    """A printed line is in the log: who follows it sees it, and a kill does not lose it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # the task may have closed or replaced them, as it likes
            stream.flush()

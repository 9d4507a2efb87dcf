"""Whether the kernel ended a process for want of memory: what can be known of it.

The kernel sends SIGKILL as anyone may, and does not say to whom it did. It counts, for the whole
machine (/proc/vmstat, oom_kill): a count that has risen shortly before a death by SIGKILL that we
did not ask for makes it likely, and is told as that, never as a fact.
"""

from __future__ import annotations

import os
import signal
import time

_LOOK_EVERY = 1.0
"""Seconds between two looks at most, while nothing dies."""

VMSTAT = "/proc/vmstat"


class OomWatch:
    """Remembers the count of the last look."""

    def __init__(self) -> None:
        self._count = _kills()
        self._at = time.monotonic()

    def look(self) -> None:
        """An attempt begins: what was killed before concerns others."""
        if time.monotonic() - self._at >= _LOOK_EVERY:
            self._news()

    def explain(self, death: str, status: int | None) -> str:
        """``death`` in words, with what makes it likely that it was for want of memory."""
        killed, seconds = self._news()
        if killed <= 0 or status is None or status & 0x7F != signal.SIGKILL:
            return death
        what = "a process" if killed == 1 else f"{killed} processes"
        return (
            f"{death}; in the {max(1, round(seconds))} s before, the kernel of this machine killed "
            f"{what} for want of memory: probably this one"
        )

    def _news(self) -> tuple[int, float]:
        """How many were killed since the last look, and how long ago that was."""
        before, then = self._count, self._at
        self._count, self._at = _kills(), time.monotonic()
        if before is None or self._count is None:
            return 0, 0.0
        return self._count - before, self._at - then


def _kills() -> int | None:
    """None where the kernel does not tell."""
    try:
        fd = os.open(VMSTAT, os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = os.read(fd, 65536)
        finally:
            os.close(fd)
        return int(text.partition(b"\noom_kill ")[2].split(b"\n", 1)[0])
    except (OSError, ValueError):
        return None

"""Guesses whether the kernel's out-of-memory killer ended a process.

The killer sends SIGKILL, as other processes may, and does not report which process it killed. It
counts its kills, for the whole machine (/proc/vmstat, oom_kill): if the count has risen shortly
before a death by SIGKILL that the master did not cause, the killer is the likely cause, and is
reported as likely, never as a fact.
"""

from __future__ import annotations

import os
import signal
import time

_LOOK_EVERY = 1.0
"""Seconds; ``look`` reads the count at most this often."""

VMSTAT = "/proc/vmstat"


class OomWatch:
    """Remembers the count as it was read last, and when."""

    def __init__(self) -> None:
        self._count = _kills()
        self._at = time.monotonic()

    def look(self) -> None:
        """An attempt begins: earlier kills do not concern it."""
        if time.monotonic() - self._at >= _LOOK_EVERY:
            self._news()

    def explain(self, death: str, status: int | None) -> str:
        """``death``, with the out-of-memory killer as its likely cause if it is."""
        killed, seconds = self._news()
        if killed <= 0 or status is None or status & 0x7F != signal.SIGKILL:
            return death
        what = "a process" if killed == 1 else f"{killed} processes"
        return (
            f"{death}; in the {max(1, round(seconds))} s before, the kernel of this machine killed "
            f"{what} for want of memory: probably this one"
        )

    def _news(self) -> tuple[int, float]:
        """The number of kills since the count was read last, and the seconds since then."""
        before, then = self._count, self._at
        self._count, self._at = _kills(), time.monotonic()
        if before is None or self._count is None:
            return 0, 0.0
        return self._count - before, self._at - then


def _kills() -> int | None:
    """The kernel's count, or None if it has none."""
    try:
        fd = os.open(VMSTAT, os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = os.read(fd, 65536)
        finally:
            os.close(fd)
        return int(text.partition(b"\noom_kill ")[2].split(b"\n", 1)[0])
    except (OSError, ValueError):
        return None

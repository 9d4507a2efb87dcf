"""Warnings that clients and tasks can cause as often as they like."""

from __future__ import annotations

import time

from taskd import log

LOG_PAUSE = 1.0
"""Seconds between two log lines of one warning."""


class Seldom:
    """A warning that is logged at most once in LOG_PAUSE, with the number of lines left out."""

    __slots__ = ("_last", "_left_out", "_text")

    def __init__(self, text: str) -> None:
        self._text = text
        self._last = float("-inf")
        self._left_out = 0

    def warn(self, **fields: object) -> None:
        now = time.monotonic()
        if now - self._last < LOG_PAUSE:
            self._left_out += 1
            return
        more = {"unlogged": self._left_out} if self._left_out else {}
        self._last, self._left_out = now, 0
        log.warning(self._text, **fields, **more)

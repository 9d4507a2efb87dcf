"""Gives what the store does not use back to the file system, in small steps.

A tenth of what it uses is kept for what comes next: a store that is emptied and filled each day
need not shrink and grow. A file that taskd 0.2 has made cannot shrink (SQLite decides that with the
first table); it uses its room again, and ``taskctl doctor`` says what would come back.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from taskd.config import size_text
from taskd.errors import StoreError
from taskd.master.loop import Storage
from taskd.master.service.checks import Check
from taskd.store.queries import Size, StoreSize

STEP = 64 * 4096
"""Bytes of one step: some milliseconds of the store's thread."""

KEPT = 10
"""This part of what is used stays free."""

SPEED = 100e6
"""Bytes that a compaction writes a second (measured: 150 MB)."""


class Shrinking:
    """``step``: give a little back, if there is enough. ``then`` gets the seconds that it took;
    None: nothing was done."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._size: Size | None = None

    def step(self, then: Callable[[float | None], None]) -> None:
        def asked(size: Size | StoreError) -> None:
            if isinstance(size, StoreError):
                then(None)
                return
            self._size = size
            if not size.shrinks or _spare(size) <= 0:
                then(None)
                return
            begun = time.monotonic()
            self._storage.writer.shrink(
                min(STEP, _spare(size)), lambda: done(size, time.monotonic() - begun)
            )

        def done(before: Size, took: float) -> None:
            self._storage.ask(
                StoreSize(),
                lambda now: then(
                    took if not isinstance(now, StoreError) and now.free < before.free else None
                ),
            )

        self._storage.ask(StoreSize(), asked)

    def checks(self) -> list[Check]:
        """For `taskctl doctor`: as of the last step."""
        if (size := self._size) is None:
            return []
        used = size.total - size.free
        text = f"{size_text(size.total)}, of which {size_text(size.free)} are free"
        if not size.shrinks and _spare(size) > 0:
            text += (
                " and are used again. taskd 0.2 made the file, which does not shrink by itself: "
                f"`taskctl gc --compact` gives {size_text(size.free)} back; it needs "
                f"{size_text(2 * used)} on the disk for a while, and submissions wait for about "
                f"{math.ceil(used / SPEED)} s"
            )
        return [{"name": "store", "ok": True, "text": text}]


def _spare(size: Size) -> int:
    """What is free beyond what is kept; less than a step is not worth one."""
    spare = size.free - (size.total - size.free) // KEPT
    return spare if spare >= STEP else 0

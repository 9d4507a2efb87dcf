"""What one part of an answer may cost, counted in what is read and not in what is found.

A filter that finds nothing in a million tasks has to end a part, too. The numbers are such that a
part takes a slow machine some milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

WORK = 600
"""What one part may cost, in reads of one short row of an index or table …"""

ROW = 4
"""… of which a statement, or making the whole row of a task, costs so many …"""

BYTES = 512 * 1024
"""… and bytes of what has no usual size: results, errors, progress, reasons."""

AT_ONCE = 100
"""Short rows that one statement reads where the first may be all that is needed …"""

FEW = 20
"""… and rows that may be long."""

Fetch = Callable[..., list[tuple[Any, ...]]]
"""Runs a statement with these values and gives all its rows. Raises StoreError."""


class Meter:
    """What is left of the cost of one part."""

    __slots__ = ("bytes", "work")

    def __init__(self) -> None:
        self.work = WORK
        self.bytes = BYTES

    def read(self, work: int, *texts: str | bytes | None) -> None:
        self.work -= work
        self.bytes -= sum(len(text) for text in texts if text is not None)

    @property
    def is_used_up(self) -> bool:
        return self.work <= 0 or self.bytes <= 0

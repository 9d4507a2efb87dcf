"""Names for the values that a test is run with, the same in every process that collects it."""

from __future__ import annotations

import re


def as_id(value: object, longest: int) -> str:
    """``value`` as it is written, without what differs from one process to the next."""
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(sorted(map(repr, value)))[:longest] + "}"
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))[:longest]

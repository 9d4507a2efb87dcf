"""Names for the values that a test is run with, the same in every process that collects it."""

from __future__ import annotations

import re


def as_id(value: object, longest: int) -> str:
    """``value`` as it is written, without what differs from one process to the next."""
    return re.sub(r" at 0x[0-9a-f]+", "", _shown(value))[:longest]


def _shown(value: object) -> str:
    match value:
        case set() | frozenset():
            return "{" + ", ".join(sorted(map(_shown, value))) + "}"
        case dict():
            return "{" + ", ".join(f"{_shown(k)}: {_shown(v)}" for k, v in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(_shown, value)) + "]"
        case _:
            return repr(value)

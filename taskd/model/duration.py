"""Lengths of time as people write them: one number and one unit. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
"""Each in seconds."""

SHORTEST = 0.001
"""Seconds of the shortest time limit: 0 is none."""

LONGEST = 100 * 366 * 86400.0

_EXPECTED = 'a number of seconds or a text such as "10min"'

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def limit(what: str, value: Any) -> float:
    """A time limit in seconds: given as a number of them, or as ``10min``, ``90s``. Raises
    TypeError and ValueError that name ``what`` and say what to write."""
    if type(value) not in (int, float, str):
        raise TypeError(f"{what} must be {_EXPECTED}, not {value!r}")
    try:
        seconds = measure(value) if isinstance(value, str) else float(value)
    except (ValueError, OverflowError):
        seconds = -1.0
    if not SHORTEST <= seconds <= LONGEST:  # NaN is not
        raise ValueError(
            f"{what} must be {_EXPECTED}, above 0, not {value!r}; leave it out for none"
        )
    return seconds


def in_words(seconds: float) -> str:
    """``10min``, ``90s``, ``0.5s``: in the largest unit in which it is a whole number."""
    for unit, size in reversed(UNITS.items()):
        if unit != "ms" and seconds >= size and not seconds % size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:g}s"


def measure(text: str, units: Mapping[str, float] = UNITS) -> float:
    """``10min``, ``1.5 h``, ``90s``: in the unit that counts 1. Raises ValueError."""
    number = text.rstrip(_LETTERS)
    unit = text[len(number) :]
    digits = number.strip()
    if unit not in units or not digits.isascii() or not digits.replace(".", "", 1).isdigit():
        raise ValueError(f"{text!r} is not a number with one of {', '.join(units)}")
    return float(digits) * units[unit]

"""Lengths of time as people write them: one number and one unit. Pure."""

from __future__ import annotations

from collections.abc import Mapping

UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
"""Each in seconds."""

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def measure(text: str, units: Mapping[str, float] = UNITS) -> float:
    """``10min``, ``1.5 h``, ``90s``: in the unit that counts 1. Raises ValueError."""
    number = text.rstrip(_LETTERS)
    unit = text[len(number) :]
    digits = number.strip()
    if unit not in units or not digits.isascii() or not digits.replace(".", "", 1).isdigit():
        raise ValueError(f"{text!r} is not a number with one of {', '.join(units)}")
    return float(digits) * units[unit]

"""Moments as people name them: a date with a time and its offset from UTC. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

LATEST = 1e10
"""The latest moment that a task can be due at, in Unix seconds: in the year 2286."""

_NAIVE = "{} does not say in which zone: {}"


def parse(text: str) -> datetime:
    """``2026-12-02T03:00+01:00``, ``2026-12-02T02:00Z``: ISO 8601 with an offset. Raises
    ValueError."""
    from datetime import datetime

    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a time such as 2026-12-02T03:00+01:00") from None
    if found.utcoffset() is None:
        raise ValueError(_NAIVE.format(repr(text), "add an offset, +01:00, or Z for UTC"))
    return found


def seconds(moment: datetime) -> float:
    """An aware datetime in Unix seconds; one before 1970 is 1970. Raises ValueError, and TypeError
    for what is no datetime."""
    from datetime import datetime

    if not isinstance(moment, datetime):
        raise TypeError(f"it must be a datetime with a zone, not {type(moment).__name__}")
    if moment.utcoffset() is None:
        wanted = "give it one, as datetime.now(UTC) or .astimezone() do"
        raise ValueError(_NAIVE.format(moment.isoformat(), wanted))
    found = moment.timestamp()
    if found > LATEST:
        raise ValueError(f"{moment.isoformat()} is too late: the last year is 2285")
    return max(0.0, found)

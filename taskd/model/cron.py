"""When a schedule has its slots: cron expressions, and equal intervals. Pure.

A slot is a moment in Unix seconds. What ``cronsim`` finds is kept (Debian cron's behaviour where
clocks change): with a ``*`` in minute or hour, an expression means real time; else a time that the
clocks leave out is met right after, and one that comes twice is met once. Three traps of it are
closed here: six fields, whose first or last is the second, depending on who reads them; an
expression that never matches; and an answer that is in the past, where local time comes twice.

``cronsim`` is imported at the first use: a new master imports it once it serves.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import floor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime, tzinfo

NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

_FIELDS = ("minute", "hour", "day of the month", "month", "day of the week")
_SIZES = (60, 24)
_STALE = 1000
"""Answers in a row that are no later than the last, after which there is none."""

_FIVE = "a cron expression has five fields: minute, hour, day of the month, month, day of the week"


def parse(expression: str) -> str:
    """The five fields, one space between them. Raises ValueError with a sentence."""
    text = NICKNAMES.get(expression.strip().lower(), expression)
    if text.startswith("@"):
        raise ValueError(f"{expression!r} is not known; there are {', '.join(NICKNAMES)}")
    fields = text.upper().split()
    if len(fields) == 6:
        raise ValueError(f'{_FIVE}; {expression!r} has six. For seconds write every = "30s"')
    if len(fields) != 5:
        raise ValueError(f"{_FIVE}; {expression!r} has {len(fields)}")
    for place, field in enumerate(fields):
        _check_field(place, field, expression)
    text = " ".join(fields)
    if not _ever(text):
        raise ValueError(f"{expression!r} never comes: it has no date in 50 years")
    return text


def _check_field(place: int, field: str, expression: str) -> None:
    from cronsim import CronSim, CronSimError

    alone = ["*"] * 5
    alone[place] = field
    try:
        CronSim(" ".join(alone), _begin())
    except (CronSimError, ValueError, AssertionError, IndexError):
        raise ValueError(
            f"{expression!r}: {field!r} is no {_FIELDS[place]}{_hint(field)}"
        ) from None


def _hint(field: str) -> str:
    if "?" in field:
        return "; write * for any"
    if "H" in field.split("/")[0].split("(")[0] and not field.startswith(("THU", "MAR")):
        return '; name a number, and spread = "10m" to spread the starts'
    start, dash, end = field.partition("-")
    if dash and start and end:
        return f"; a range goes upwards: write its two parts, {start}-… and …-{end}, with a comma"
    return ""


def _ever(text: str) -> bool:
    from cronsim import CronSim, CronSimError

    try:
        return next(CronSim(text, _begin()), None) is not None
    except CronSimError:
        return False


def _begin() -> datetime:
    from datetime import UTC, datetime

    return datetime(2000, 1, 1, tzinfo=UTC)


def doubts(text: str) -> list[str]:
    """What in a parsed expression may be meant otherwise, in sentences."""
    found = []
    for field, size, name in zip(text.split(), _SIZES, _FIELDS, strict=False):
        for term in field.split(","):
            base, _, step = term.partition("/")
            if base == "*" and step and size % int(step):
                met = ", ".join(str(n) for n in range(0, size, int(step)))
                found.append(f"{term} does not divide {size}: the {name} is {met}")
    return found


def in_words(text: str) -> str:
    """What a parsed expression means."""
    from cronsim import CronSim

    return CronSim(text, _begin()).explain()


def slots(text: str, zone: tzinfo, after: float) -> Iterator[float]:
    """The slots of a parsed expression that are later than ``after``, in their order."""
    from datetime import datetime

    from cronsim import CronSim

    last, stale = after, 0
    for moment in CronSim(text, datetime.fromtimestamp(after, zone)):
        found = moment.timestamp()
        if found > last:
            last, stale = found, 0
            yield found
        elif (stale := stale + 1) > _STALE:
            return


def intervals(every: int, after: float) -> Iterator[float]:
    """The multiples of ``every`` seconds that are later than ``after``, counted from midnight UTC
    of 1970-01-01."""
    number = floor(after / every)
    while True:
        number += 1
        yield float(number * every)

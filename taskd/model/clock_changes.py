"""What a cron expression does where the clocks of its zone change. Pure.

An expression with any hour (``*``) means real time, and no change of the clocks touches it. Of
others, a time of day that the clocks leave out is met right after or not at all, and one that comes
twice is met once or twice: that depends on the expression (see ``cron``), so it is said.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, takewhile
from typing import TYPE_CHECKING

from taskd.model import cron

if TYPE_CHECKING:
    from datetime import datetime, tzinfo

AHEAD = 400
"""Days in which the next changes are looked for."""

COUNT = 2
"""Changes that are told: one forward and one back, where there is summer time."""

SHOWN = 3
"""Times of day that are named."""

_DAY = 86400


def told(text: str, zone: tzinfo, now: float) -> list[str]:
    """What the next changes do to the parsed expression ``text``, a sentence for each that touches
    it."""
    if text.split()[1] == "*":
        return []
    sentences = (_sentence(text, zone, at) for at in islice(_changes(zone, now), COUNT))
    return [each for each in sentences if each]


def _changes(zone: tzinfo, now: float) -> Iterator[int]:
    """The moments, in Unix seconds, from which on another offset from UTC holds."""
    first = int(now)
    for low in range(first, first + AHEAD * _DAY, _DAY):
        high = low + _DAY
        if _offset(zone, low) == _offset(zone, high):
            continue
        before = _offset(zone, low)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if _offset(zone, middle) == before else (low, middle)
        yield high


def _offset(zone: tzinfo, at: float) -> int:
    from datetime import datetime

    found = datetime.fromtimestamp(at, zone).utcoffset()
    assert found is not None, "a zone says its offset"
    return int(found.total_seconds())


def _sentence(text: str, zone: tzinfo, at: int) -> str | None:
    from datetime import UTC, datetime

    from cronsim import CronSim

    was, is_ = (datetime.fromtimestamp(at + _offset(zone, each), UTC) for each in (at - 1, at))
    low, high = min(was, is_), max(was, is_)
    length = int((high - low).total_seconds())
    named = takewhile(lambda each: each < high, CronSim(text, _just_before(low)))
    times = list(dict.fromkeys(f"{each:%H:%M}" for each in named if each >= low))
    if not times:
        return None
    shown = ", ".join(times[:SHOWN]) + (", …" if len(times) > SHOWN else "")
    since = at - 1 if is_ > was else at - length - 1
    met = list(takewhile(lambda slot: slot < at + length, cron.slots(text, zone, since)))
    if is_ > was:
        verb = f"runs at {is_:%H:%M}" if met and met[0] == at else "does not run"
        how = f"from {was:%H:%M} to {is_:%H:%M}"
    else:
        verb = "runs once" if len(met) <= len(times) else "runs twice"
        how = f"back from {was:%H:%M} to {is_:%H:%M}"
    return f"on {is_:%Y-%m-%d} the clocks go {how}: {shown} {verb}"


def _just_before(moment: datetime) -> datetime:
    from datetime import timedelta

    return moment - timedelta(minutes=1)

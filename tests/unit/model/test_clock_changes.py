"""What is said of a schedule whose hour the clocks leave out, or show twice."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from taskd.model import clock_changes, cron

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 6, 1, tzinfo=UTC).timestamp()
AUTUMN = "on 2026-10-25 the clocks go back from 03:00 to 02:00: "
SPRING = "on 2027-03-28 the clocks go from 02:00 to 03:00: "


@pytest.mark.parametrize(
    ("expression", "autumn", "spring"),
    [
        ("30 2 * * *", "02:30 runs once", "02:30 runs at 03:00"),
        ("0,30 2 * * *", "02:00, 02:30 runs once", "02:00, 02:30 runs at 03:00"),
        (
            "*/15 2 * * *",
            "02:00, 02:15, 02:30, … runs twice",
            "02:00, 02:15, 02:30, … does not run",
        ),
        ("0 */2 * * *", "02:00 runs twice", "02:00 does not run"),
    ],
)
def test_both_changes_are_told(expression: str, autumn: str, spring: str) -> None:
    """As was seen of cronsim, which does what Debian's cron does."""
    told = clock_changes.told(cron.parse(expression), BERLIN, NOW)
    assert told == [AUTUMN + autumn, SPRING + spring]


@pytest.mark.parametrize("expression", ["0 3 * * *", "0 * * * *", "*/5 * * * *", "30 2 * * 1-5"])
def test_what_no_change_touches_is_not_told(expression: str) -> None:
    """The clocks change on Sundays; an expression for each hour means real time."""
    assert clock_changes.told(cron.parse(expression), BERLIN, NOW) == []


def test_a_zone_whose_clocks_never_change_has_nothing_to_tell() -> None:
    for zone in (UTC, ZoneInfo("Asia/Tokyo")):
        assert clock_changes.told("30 2 * * *", zone, NOW) == []


def test_half_an_hour_is_a_change_too() -> None:
    told = clock_changes.told("15 2 * * *", ZoneInfo("Australia/Lord_Howe"), NOW)
    assert len(told) == 1
    assert told[0].endswith("the clocks go from 02:00 to 02:30: 02:15 runs at 02:30")

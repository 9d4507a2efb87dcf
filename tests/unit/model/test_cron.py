"""When slots come, over nights in which the clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings, strategies as st

from taskd.model import cron

BERLIN, LORD_HOWE = "Europe/Berlin", "Australia/Lord_Howe"  # an hour; half an hour
SANTIAGO, APIA = "America/Santiago", "Pacific/Apia"  # at midnight; a day that was left out

NIGHTS = [
    (BERLIN, "2027-03-28"),
    (BERLIN, "2026-10-25"),
    (LORD_HOWE, "2026-10-04"),
    (LORD_HOWE, "2027-04-04"),
    (SANTIAGO, "2026-09-06"),
    (SANTIAGO, "2027-04-04"),
    (APIA, "2011-12-30"),
    ("UTC", "2026-12-01"),
]

FORMS = [
    "30 2 * * *",
    "0,30 2 * * *",
    "*/15 2 * * *",
    "0 * * * *",
    "0 */2 * * *",
    "15 0 * * *",
    "*/20 * * * *",
    "0 0 * * *",
    "0 12 29 * *",
]


def times(expression: str, zone: str, begin: str, hours: int = 24) -> list[str]:
    """The slots of the first ``hours`` of that day, in local time with the offset."""
    start = datetime.fromisoformat(begin).replace(tzinfo=ZoneInfo(zone)).timestamp()
    found = []
    for slot in cron.slots(cron.parse(expression), ZoneInfo(zone), start - 1):
        if slot >= start + hours * 3600:
            return found
        found.append(datetime.fromtimestamp(slot, ZoneInfo(zone)).strftime("%H:%M%z")[:8])
    return found


@pytest.mark.parametrize(
    ("expression", "spring", "autumn"),
    [
        ("30 2 * * *", ["03:00+02"], ["02:30+02"]),
        ("0,30 2 * * *", ["03:00+02"], ["02:00+02", "02:30+02"]),
        ("0 * * * *", ["00:00+01", "01:00+01", "03:00+02"], ["00:00+02", "01:00+02", "02:00+02"]),
        ("0 */2 * * *", ["00:00+01", "04:00+02"], ["00:00+02", "02:00+02", "02:00+01"]),
        ("*/15 2 * * *", [], [f"02:{m:02}+0{z}" for z in (2, 1) for m in (0, 15, 30, 45)]),
    ],
)
def test_a_night_with_and_without_an_hour(
    expression: str, spring: list[str], autumn: list[str]
) -> None:
    def told(found: list[str]) -> list[str]:
        return [time[:8] for time in found]

    assert told(times(expression, BERLIN, "2027-03-28", 4))[:3] == spring
    got = [each for each in times(expression, BERLIN, "2026-10-25", 5) if each < "03"]
    assert told(got)[: len(autumn)] == autumn


def test_asked_in_the_hour_that_comes_twice_it_answers_with_the_future() -> None:
    second_pass = datetime(2026, 10, 25, 1, 10, tzinfo=UTC).timestamp()
    (found,) = islice(cron.slots("30 2 * * *", ZoneInfo(BERLIN), second_pass), 1)
    assert datetime.fromtimestamp(found, UTC) == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(NIGHTS), st.sampled_from(FORMS), st.integers(-36 * 60, 36 * 60), st.integers()
)
def test_slots_rise_and_do_not_depend_on_when_one_asks(
    night: tuple[str, str], expression: str, minutes: int, pick: int
) -> None:
    """What is found from the last slot is what is found from any moment before it."""
    zone = ZoneInfo(night[0])
    middle = datetime.fromisoformat(night[1]).replace(tzinfo=zone)
    begin = (middle.astimezone(UTC) + timedelta(minutes=minutes)).timestamp()
    found = list(islice(cron.slots(expression, zone, begin), 40))
    assert all(a < b for a, b in pairwise([begin, *found]))
    where = pick % (len(found) - 20)
    again = list(islice(cron.slots(expression, zone, found[where]), 20))
    assert again == found[where + 1 : where + 21]
    between = (found[where] + found[where + 1]) / 2
    assert next(cron.slots(expression, zone, between)) == found[where + 1]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(NIGHTS), st.integers(0, 23), st.integers(0, 59))
def test_a_time_of_the_day_comes_once_on_every_day_that_there_is(
    night: tuple[str, str], hour: int, minute: int
) -> None:
    zone = ZoneInfo(night[0])
    begin = datetime.fromisoformat(night[1]) - timedelta(days=3)
    start = begin.replace(tzinfo=zone).timestamp() - 1
    expression = f"{minute} {hour} * * *"
    found = list(islice(cron.slots(expression, zone, start), 6))
    days = [datetime.fromtimestamp(slot, zone).date() for slot in found]
    if night[0] == APIA:  # the day that was left out is met in the first minute of the next
        at_midnight = (hour, minute) == (0, 0)  # then it is the next day's own slot as well
        numbers = [27, 28, 29, 31, 1, 2] if at_midnight else [27, 28, 29, 31, 31, 1]
        assert [day.day for day in days] == numbers
        assert found[3] == datetime(2011, 12, 31, tzinfo=zone).timestamp()
        return
    assert [(b - a).days for a, b in pairwise(days)] == [1] * 5, "once, and no day is left out"


def test_equal_intervals_count_from_midnight_utc() -> None:
    assert list(islice(cron.intervals(30, 86400.0), 2)) == [86430.0, 86460.0]
    assert list(islice(cron.intervals(30, 86429.5), 2)) == [86430.0, 86460.0]


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("0 3 * * * *", 'has six. For seconds write every = "30s"'),
        ("0 3 *", "has five fields: .* has 3"),
        ("0 22-2 * * *", "'22-2' is no hour; a range goes upwards: write its two parts"),
        ("0 0 * * FRI-MON", "'FRI-MON' is no day of the week; a range"),
        ("0 0 ? * 1", r"'\?' is no day of the month; write \* for any"),
        ("H 3 * * *", "'H' is no minute; name a number, and spread"),
        ("@reboot", "'@reboot' is not known; there are @yearly"),
        ("60 3 * * *", "'60' is no minute"),
        ("0 0 30 2 *", "never comes"),
        ("0 0 */30 2 1#5", "never comes: it has no date in 50 years"),
        ("", "has 0"),
    ],
)
def test_what_is_no_expression_is_refused_with_a_sentence(expression: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        cron.parse(expression)


@given(st.text(alphabet="0123456789*/,-#L?HWFRIMON @", max_size=20))
def test_whatever_is_written_is_an_expression_or_refused(text: str) -> None:
    try:
        parsed = cron.parse(text)
    except ValueError:
        return
    assert cron.parse(parsed) == parsed
    assert cron.in_words(parsed)


def test_steps_that_do_not_divide_are_doubted() -> None:
    assert cron.doubts(cron.parse("*/45 * * * *")) == [
        "*/45 does not divide 60: the minute is 0, 45"
    ]
    assert cron.doubts(cron.parse("@Daily")) == cron.doubts(cron.parse("*/15 */6 * * *")) == []


def test_what_it_means_is_said_in_words() -> None:
    assert "Monday" in cron.in_words(cron.parse("0 0 29 2 1"))

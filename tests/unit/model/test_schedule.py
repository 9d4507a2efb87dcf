"""Which slots run, which are skipped, and that each is decided once."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import takewhile
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings, strategies as st

from taskd.model.schedule import BACK, LATE, MOST, Backlog, Schedule, Verdict, make, restored

HOUR, DAY = 3600.0, 86400.0
NIGHT = datetime(2026, 12, 1, 3, tzinfo=UTC).timestamp()


def schedule(**said: Any) -> Schedule:
    return make("nightly", "code", "backup", said or {"cron": "0 3 * * *"})


def decide(
    schedule: Schedule, mark: float, now: float, catch_up: str | None = None, most: int = 7
) -> Verdict | None:
    zone = ZoneInfo(schedule.tz)
    backlog = Backlog(schedule, schedule.slots(zone, mark), now - schedule.offset)
    while not backlog.count(most):
        pass
    return backlog.judge(now, catch_up)


def test_nothing_is_due_before_the_slot_and_once_after_it() -> None:
    nightly = schedule(cron="0 3 * * *")
    assert decide(nightly, NIGHT - DAY, NIGHT - 1) is None
    assert decide(nightly, NIGHT - DAY, NIGHT) == Verdict((NIGHT,), (), NIGHT)
    assert decide(nightly, NIGHT, NIGHT + HOUR) is None


def test_a_slot_that_is_a_little_late_runs_and_one_that_is_later_is_skipped_with_the_reason() -> (
    None
):
    """A reboot from 02:59 to 03:02 loses no backup."""
    nightly = schedule(cron="0 3 * * *")
    assert decide(nightly, NIGHT - DAY, NIGHT + LATE) == Verdict((NIGHT,), (), NIGHT)
    found = decide(nightly, NIGHT - DAY, NIGHT + LATE + 1)
    assert found is not None and found.runs == ()
    assert [(s.first, s.last, s.slots) for s in found.skips] == [(NIGHT, NIGHT, 1)]
    assert "too late" in found.skips[0].reason


def test_a_slot_is_missed_once_the_next_one_is_due() -> None:
    often = schedule(every="1min")
    found = decide(often, NIGHT, NIGHT + 125)
    assert found is not None
    assert found.runs == (NIGHT + 120,)
    assert [(s.first, s.slots) for s in found.skips] == [(NIGHT + 60, 1)]


@pytest.mark.parametrize(
    ("policy", "runs"),
    [("skip", []), ("once", [NIGHT]), ("all", [NIGHT - 2 * DAY, NIGHT - DAY, NIGHT])],
)
def test_catching_up_after_three_days(policy: str, runs: list[float]) -> None:
    overlap = "run" if policy == "all" else "skip"
    nightly = schedule(cron="0 3 * * *", catch_up=policy, overlap=overlap)
    found = decide(nightly, NIGHT - 3 * DAY, NIGHT + 2 * HOUR)
    assert found is not None
    assert (list(found.runs), found.mark) == (runs, NIGHT)
    assert sum(skip.slots for skip in found.skips) == 3 - len(runs)


def test_all_is_bounded_and_says_how_many_it_leaves_out() -> None:
    often = schedule(every="10min", catch_up="all", overlap="run")
    found = decide(often, NIGHT - 30 * DAY, NIGHT + 1)
    assert found is not None
    assert (len(found.runs), found.runs[-1]) == (MOST + 1, NIGHT)
    assert list(found.runs) == sorted(found.runs)
    assert [s.slots for s in found.skips] == [30 * 144 - MOST - 1]
    weekly = schedule(cron="0 3 * * 2", catch_up="all", overlap="run")
    found = decide(weekly, NIGHT - 60 * DAY, NIGHT + 2 * DAY)
    assert found is not None
    assert all(NIGHT + 2 * DAY - slot <= BACK for slot in found.runs)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["*/7 * * * *", "0 3 * * *", 30, 60, 420]),
    st.sampled_from(["Europe/Berlin", "Australia/Lord_Howe", "America/Santiago", "UTC"]),
    st.sampled_from(["skip", "once", "all"]),
    st.lists(st.integers(1, 3 * 86400), min_size=1, max_size=6),
    st.integers(1, 500),
)
def test_every_slot_is_decided_once_however_the_clock_is_looked_at(
    timing: str | int, tz: str, policy: str, steps: list[int], most: int
) -> None:
    """Over the night of 25 October, in which Berlin's clocks go back, and around it."""
    said = {"cron": timing, "tz": tz} if isinstance(timing, str) else {"every": timing}
    said |= {"catch_up": policy, "overlap": "run" if policy == "all" else "skip"}
    made = schedule(**said)
    begin = mark = now = datetime(2026, 10, 24, 12, 1, tzinfo=UTC).timestamp()
    decided, ran = 0, []
    for step in steps:
        now += step
        found = decide(made, mark, now, most=most)
        if found is None:
            continue
        assert all(mark < slot <= found.mark <= now for slot in found.runs)
        assert all(mark < skip.first <= skip.last <= found.mark for skip in found.skips)
        decided += len(found.runs) + sum(skip.slots for skip in found.skips)
        ran += found.runs
        mark = found.mark
    all_due = list(takewhile(lambda slot: slot <= now, made.slots(ZoneInfo(made.tz), begin)))
    assert decided == len(all_due)
    assert sorted(set(ran)) == ran and set(ran) <= set(all_due)
    assert not all_due or mark == all_due[-1]


def test_a_year_of_seconds_is_not_counted_one_by_one() -> None:
    often = schedule(every="1s")
    backlog = Backlog(often, often.slots(None, NIGHT - 365 * DAY), NIGHT)
    assert backlog.count(10_000)
    found = backlog.judge(NIGHT)
    assert found is not None
    assert found.skips[0].slots == 365 * 86400 - 1


def test_a_clock_that_was_set_back_repeats_nothing() -> None:
    assert decide(schedule(cron="0 3 * * *"), NIGHT, NIGHT - DAY) is None


def test_spread_shifts_when_it_is_due_but_not_the_slot() -> None:
    spread = schedule(cron="0 3 * * *", spread="10m".replace("m", "min"))
    assert 0 < spread.offset < 600
    assert decide(spread, NIGHT - DAY, NIGHT + spread.offset - 1) is None
    found = decide(spread, NIGHT - DAY, NIGHT + spread.offset)
    assert found is not None and found.runs == (NIGHT,)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({}, "say either cron or every"),
        ({"cron": "@daily", "every": "1h"}, "say either cron or every"),
        ({"every": "0.5s"}, "whole seconds, at least 1"),
        ({"every": "1h", "tz": "Europe/Berlin"}, "it takes no tz"),
        ({"cron": "@daily", "overlap": "never"}, "overlap is one of skip, queue, run"),
        ({"cron": "@daily", "catch_up": "all"}, 'it needs overlap = "run"'),
        ({"cron": "@daily", "late": "soon"}, "late must be a time such as"),
        ({"cron": 5}, "cron must be a text"),
        ({"cron": "@daily", "args": [1]}, "args must be a table"),
        ({"cron": "@daily", "priority": "high"}, "priority must be a whole number"),
        ({"cron": "@daily", "queue": ""}, "queue must be a text"),
    ],
)
def test_what_is_no_schedule_is_refused_with_a_sentence(said: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        make("nightly", "code", "backup", said)


def test_a_schedule_is_kept_as_a_map_of_plain_values() -> None:
    made = schedule(cron="0 3 * * *", tz="Europe/Berlin", args={"to": "s3"}, late=60)
    assert restored(made._asdict() | {"of_a_later_version": 1}) == made

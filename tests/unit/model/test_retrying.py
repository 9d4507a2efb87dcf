"""Whether and when a failed try is followed by another one: bounded and finite."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from taskd.model import retrying
from taskd.model.retrying import LONGEST, MOST_DELAYS, Failure, Policy

SECONDS = st.floats(0, LONGEST)
POLICIES = st.builds(
    Policy,
    retries=st.integers(0, 10**9),
    delays=st.none() | st.lists(SECONDS, min_size=1, max_size=9).map(tuple),
    max_backoff=SECONDS,
    jitter=st.floats(0, 1),
)
NUMBERS = st.integers(1, 10**9) | st.sampled_from([1, 2, 64, 65, 1024, 1025, 10**9])
DRAWN = st.floats(0, 1, exclude_max=True)


@given(POLICIES, NUMBERS, DRAWN)
def test_a_delay_is_finite_and_below_the_cap_for_any_number(
    policy: Policy, number: int, drawn: float
) -> None:
    delay = retrying.delay(policy, number, drawn)
    assert math.isfinite(delay)
    assert 0 <= delay <= policy.max_backoff
    assert delay <= retrying.delay(policy, number, 0.0)


@given(POLICIES, NUMBERS)
def test_jitter_takes_its_part_at_the_cap_as_well(policy: Policy, number: int) -> None:
    """Where it was cut off at the cap, all that failed together would come back together."""
    whole, half = (retrying.delay(policy, number, drawn) for drawn in (0.0, 0.5))
    assert half == pytest.approx(whole * (1 - policy.jitter / 2))


@given(POLICIES, st.integers(1, 10**9))
def test_an_exponential_delay_never_shrinks(policy: Policy, number: int) -> None:
    policy = policy._replace(delays=None)
    assert retrying.delay(policy, number, 0.0) <= retrying.delay(policy, number + 1, 0.0)


def test_an_exponential_delay_doubles_up_to_the_cap() -> None:
    assert list(retrying.planned(Policy(), 12)) == [*(2.0**n for n in range(10)), 600.0, 600.0]


def test_the_last_delay_of_a_list_stands_for_all_further_retries() -> None:
    assert list(retrying.planned(Policy(9, (1.0, 10.0, 60.0)), 5)) == [1, 10, 60, 60, 60]


@given(POLICIES, st.integers(0, 10**9))
def test_a_plan_is_bounded(policy: Policy, retries: int) -> None:
    planned = list(retrying.planned(policy, retries))
    assert len(planned) == min(retries, MOST_DELAYS)
    if policy.delays is None:
        assert all(a <= b for a, b in pairwise(planned))


@pytest.mark.parametrize(
    ("said", "told", "allowed"),
    [
        (None, Failure(Policy(7)), 7),  # the code that failed
        (0, Failure(Policy(7)), 0),  # the submission
        (9, None, 9),
        (None, None, 3),  # a worker of 0.2: as its code said at submission
    ],
)
def test_only_what_was_said_at_submission_goes_before_the_code_that_failed(
    said: int | None, told: Failure | None, allowed: int
) -> None:
    assert retrying.allowed(said, told, 3) == allowed

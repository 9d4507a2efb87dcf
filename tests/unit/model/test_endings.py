"""What becomes of a task when an attempt is over: the three budgets, and that none is ever lost."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from hypothesis import given, strategies as st

from taskd.model import endings
from taskd.model.endings import CRASHES, LONGEST_DELAY, Facts, Verdict, backoff, judge
from taskd.model.retrying import PUT_OFFS, Failure, Policy
from taskd.model.table import after
from taskd.model.task import CHANGES, ENDED, Budgets, Change, State
from taskd.protocol.saved import Outcome

NOW = 1000.0
ERROR = {"type": "ValueError", "message": "no such row", "traceback": "…"}

BUDGETS = st.builds(Budgets, *[st.integers(0, 5000)] * 4)
FACTS = st.builds(
    Facts,
    outcome=st.sampled_from([None, *(outcome.value for outcome in Outcome)]),
    progressed=st.booleans(),
    asked=st.none() | st.just("deploy of r2"),
    death=st.just("its process was killed by SIGKILL"),
    reason=st.none() | st.just("why"),
    wake=st.just(2000.0),
    error=st.none() | st.just(ERROR),
    failure=st.none()
    | st.builds(
        Failure,
        policy=st.just(Policy(3, (7.0,), 600.0, 0.0)),
        after=st.none() | st.just(5.0),
        final=st.none() | st.just("it said so"),
        note=st.none(),
    ),
)
DIED = Facts(None, False, death="its process was killed by SIGKILL")
LEFT = Facts("left", False, asked="deploy of r2")


def follow(facts: list[Facts], allowed: int = 0) -> list[Verdict]:
    """The verdicts of attempts one after another."""
    verdicts: list[Verdict] = []
    budgets = Budgets()
    for each in facts:
        verdicts.append(judge(each, budgets, allowed, NOW))
        budgets = verdicts[-1].budgets
    return verdicts


@given(FACTS, BUDGETS, st.integers(0, 5000))
def test_no_end_loses_a_task(facts: Facts, budgets: Budgets, allowed: int) -> None:
    """It is ended as it ended itself, or held with a reason, or goes on at a time that comes."""
    verdict = judge(facts, budgets, allowed, NOW)
    ends = {"succeeded": State.SUCCEEDED, "failed": State.FAILED, "cancelled": State.CANCELLED}
    if verdict.state is State.FAILED and facts.outcome == "sleeping":
        assert budgets.put_off >= PUT_OFFS
    elif verdict.state in ENDED:
        assert facts.outcome is not None
        assert verdict.state is ends[facts.outcome]
    elif verdict.state is State.HELD:
        assert facts.outcome == "held" or verdict.reason
    else:
        assert verdict.state in (State.QUEUED, State.SCHEDULED)
    if verdict.state is State.SCHEDULED:
        assert verdict.delay is not None
        assert verdict.delay in (2000.0 - NOW, 7.0, 5.0, *_waits())
    else:
        assert verdict.delay is None


def _waits() -> list[float]:
    return [backoff(count) for count in range(1, 20)]


@given(FACTS, BUDGETS, st.integers(0, 5000))
def test_every_verdict_is_a_change_that_a_running_task_may_make(
    facts: Facts, budgets: Budgets, allowed: int
) -> None:
    changes = {after(CHANGES, State.RUNNING, change) for change in Change if _may(change)}
    assert judge(facts, budgets, allowed, NOW).state in changes


def _may(change: Change) -> bool:
    try:
        after(CHANGES, State.RUNNING, change)
    except ValueError:
        return False
    return True


@given(st.lists(st.booleans(), max_size=12))
def test_a_task_that_dies_is_held_exactly_after_three_deaths_at_one_place(
    progressed: list[bool],
) -> None:
    in_a_row = 0
    for verdict, moved in zip(
        follow([DIED._replace(progressed=moved) for moved in progressed]), progressed, strict=True
    ):
        in_a_row = 1 if moved else in_a_row + 1
        assert (verdict.state is State.HELD) == (in_a_row >= CRASHES)
        assert verdict.budgets.crashes == in_a_row


def test_the_first_death_at_a_place_is_tried_at_once_the_second_after_a_while() -> None:
    first, second, third = follow([DIED] * 3)
    assert (first.state, first.delay) == (State.QUEUED, None)
    assert (second.state, second.delay) == (State.SCHEDULED, 1.0)
    assert third.state is State.HELD
    assert third.reason == (
        "died 3 times at the same place; the last time its process was killed by SIGKILL"
    )


@pytest.mark.parametrize("between", ["left", "sleeping", "yielded"])
def test_deaths_with_progress_between_them_are_not_at_one_place(between: str) -> None:
    moved = Facts(between, True, wake=2000.0)
    verdicts = follow([DIED, DIED, moved, DIED])
    assert verdicts[-1].state is State.QUEUED
    assert verdicts[-1].budgets.crashes == 1


@pytest.mark.parametrize("between", ["left", "sleeping", "yielded"])
def test_deaths_with_an_idle_interruption_between_them_are_at_one_place(between: str) -> None:
    idle = Facts(between, False, wake=2000.0)
    assert follow([DIED, DIED, idle, DIED])[-1].state is State.HELD


def test_interruptions_are_free_and_counted_in_a_row() -> None:
    verdicts = follow([LEFT] * 50)
    assert {verdict.state for verdict in verdicts} == {State.QUEUED}
    assert [verdict.budgets.interruptions for verdict in verdicts] == list(range(1, 51))
    assert verdicts[0].reason == "interrupted: deploy of r2"


@pytest.mark.parametrize(
    "progress", [LEFT._replace(progressed=True), DIED._replace(progressed=True)]
)
def test_progress_ends_a_row_of_interruptions(progress: Facts) -> None:
    assert follow([LEFT, LEFT, progress])[-1].budgets.interruptions == 0


def test_a_worker_that_we_ended_is_an_interruption_and_no_crash() -> None:
    (verdict,) = follow([DIED._replace(asked="the daemon stopped")])
    assert verdict == Verdict(
        State.QUEUED, Budgets(0, 0, 1), "interrupted: the daemon stopped", moves=True
    )


def test_a_failure_is_tried_again_as_often_as_allowed() -> None:
    verdicts = follow([Facts("failed", False, error=ERROR)] * 3, allowed=2)
    assert [v.state for v in verdicts] == [State.SCHEDULED, State.SCHEDULED, State.FAILED]
    assert [v.delay for v in verdicts] == [1.0, 2.0, None]
    assert verdicts[0].reason == "retry 1 of 2 after ValueError: no such row"
    assert verdicts[-1].reason == "ValueError: no such row"
    assert {str(v.error) for v in verdicts} == {str(ERROR)}


def failed(**told: Any) -> Facts:
    return Facts(
        "failed", False, error=ERROR, failure=Failure(Policy(9, (7.0, 70.0)))._replace(**told)
    )


def test_the_policy_of_the_code_that_failed_makes_the_delay() -> None:
    assert [v.delay for v in follow([failed()] * 3, allowed=9)] == [7.0, 70.0, 70.0]


def test_a_task_that_says_when_to_try_again_uses_a_retry_all_the_same() -> None:
    verdicts = follow([failed(), failed(after=1.5), failed(), failed(after=0.0)], allowed=3)
    assert [v.delay for v in verdicts] == [7.0, 1.5, 70.0, None]
    assert verdicts[-1].state is State.FAILED


def test_a_failure_that_is_final_uses_no_retry() -> None:
    (verdict,) = follow([failed(final="give_up_on names ValueError")], allowed=9)
    assert (verdict.state, verdict.budgets, verdict.delay) == (State.FAILED, Budgets(), None)
    assert verdict.reason == (
        "ValueError: no such row; not tried again: give_up_on names ValueError"
    )


def test_what_is_wrong_with_a_policy_is_said() -> None:
    (verdict,) = follow([failed(note="its backoff function raised KeyError")], allowed=1)
    assert verdict.reason == (
        "retry 1 of 1 after ValueError: no such row (its backoff function raised KeyError)"
    )


@pytest.mark.parametrize("between", [DIED, LEFT, Facts("sleeping", True, wake=2000.0)])
def test_backoff_counts_failures_and_nothing_that_comes_between_them(between: Facts) -> None:
    verdicts = follow([failed(), *[between] * 2, failed()], allowed=9)
    assert (verdicts[0].delay, verdicts[-1].delay) == (7.0, 70.0)
    assert verdicts[-1].budgets == Budgets(2, 0, 0)


PUT_OFF = Facts(
    "sleeping", False, wake=NOW + 60, error=ERROR, failure=Failure(Policy(9, (7.0,)), counts=False)
)


def test_a_task_that_puts_itself_off_uses_no_retry_and_lengthens_no_wait() -> None:
    verdicts = follow([failed(), *[PUT_OFF] * 37, failed()], allowed=9)
    assert verdicts[37].reason == "put off 37 times, by itself: ValueError: no such row"
    assert (verdicts[37].state, verdicts[37].delay) == (State.SCHEDULED, 60.0)
    assert verdicts[37].budgets == Budgets(1, 0, 0, 37)
    assert (verdicts[-1].delay, verdicts[-1].budgets) == (70.0, Budgets(2))
    (first,) = follow([PUT_OFF._replace(reason="429")])
    assert first.reason == "put off once, by itself: 429"


def test_a_task_that_puts_itself_off_without_end_fails() -> None:
    verdicts = follow([PUT_OFF] * (PUT_OFFS + 1), allowed=1)
    assert {verdict.budgets.retries for verdict in verdicts[:-1]} == {0}
    assert verdicts[-1].reason == (
        "retry 1 of 1 after ValueError: put off 1,000 times in a row by itself; the last time: no "
        "such row"
    )
    assert verdicts[-1].budgets == Budgets(1)
    assert follow([PUT_OFF] * (PUT_OFFS + 1))[-1].state is State.FAILED


def test_what_a_task_saves_between_two_times_that_it_puts_itself_off_ends_the_row() -> None:
    moved = PUT_OFF._replace(progressed=True)
    verdicts = follow([*[PUT_OFF] * PUT_OFFS, moved, PUT_OFF])
    assert [verdict.budgets.put_off for verdict in verdicts[-2:]] == [1, 2]


def test_a_failure_without_retries_fails_at_once() -> None:
    (verdict,) = follow([Facts("failed", True, error=ERROR)])
    assert verdict.state is State.FAILED


def test_a_failure_that_lost_its_error_is_a_failure_all_the_same() -> None:
    (verdict,) = follow([Facts("failed", False, reason="it said so")])
    assert (verdict.state, verdict.reason) == (State.FAILED, "Error: it said so")


def test_a_retry_begins_with_fresh_crashes_and_interruptions() -> None:
    failed = Facts("failed", False, error=ERROR)
    assert follow([DIED, LEFT, failed], allowed=1)[-1].budgets == Budgets(1, 0, 0)


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        ("succeeded", State.SUCCEEDED),
        ("cancelled", State.CANCELLED),
        ("held", State.HELD),
    ],
)
def test_what_the_worker_says_of_the_end_stands(outcome: str, state: State) -> None:
    verdict = judge(Facts(outcome, True, asked="deploy", reason="why"), Budgets(1, 2, 3), 9, NOW)
    assert (verdict.state, verdict.budgets) == (state, Budgets(1, 2, 3))
    assert verdict.reason == (None if outcome == "succeeded" else "why")


def test_a_sleeping_task_wakes_when_it_said() -> None:
    (verdict,) = follow([Facts("sleeping", True, wake=4321.0)])
    assert (verdict.state, verdict.delay) == (State.SCHEDULED, 4321.0 - NOW)


def test_a_command_that_asks_to_be_continued_waits_longer_while_it_gets_nowhere() -> None:
    idle = Facts("yielded", False, reason="exit status 75")
    waits: list[Any] = [v.delay for v in follow([idle] * 4)]
    assert waits == [1.0, 2.0, 4.0, 8.0]
    (verdict,) = follow([idle._replace(progressed=True)])
    assert (verdict.delay, verdict.reason) == (1.0, "exit status 75")


@given(st.integers(1, 10**9))
def test_a_wait_is_bounded_however_often_it_was_tried(count: int) -> None:
    assert 1 <= backoff(count) <= LONGEST_DELAY
    assert backoff(count) <= backoff(count + 1)


def test_a_cancelled_task_says_who_wished_it_and_how_it_ended() -> None:
    died = Facts(None, False, death="its process was killed by SIGSEGV")
    assert endings.if_cancelled(died, "cancelled by user 7") == (
        "cancelled by user 7; its process was killed by SIGSEGV"
    )
    killed = died._replace(asked="did not leave in 1 s, and was killed")
    assert endings.if_cancelled(killed, None) == "cancelled; did not leave in 1 s, and was killed"
    assert endings.if_cancelled(Facts("left", True), "cancelled by user 7") == "cancelled by user 7"


def test_the_longest_wait_is_reached() -> None:
    assert backoff(20) == LONGEST_DELAY


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (None, "its process died; how is not known"),
        (0, "its process ended by itself with exit status 0"),
        (71 << 8, "its process ended by itself with exit status 71"),
        (signal.SIGKILL, "its process was killed by SIGKILL"),
        (signal.SIGSEGV | 0x80, "its process was killed by SIGSEGV"),  # with a core dump
        (40, "its process was killed by signal 40"),  # a real-time signal has no name
    ],
)
def test_a_death_is_told_in_words(status: int | None, words: str) -> None:
    assert endings.death_in_words(status) == words

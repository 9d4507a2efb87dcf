"""What becomes of an attempt whose time was over."""

from __future__ import annotations

from typing import Any

import pytest

from taskd.model import retrying
from taskd.model.endings import Facts, Verdict, heeding_the_timeout, judge
from taskd.model.task import Budgets, State

WHY = "ran for longer than its timeout of 2h"
MANIFEST = {"retries": 2, "delays": [5], "max_backoff": 600, "jitter": 0, "function": False}


def judged(outcome: str | None, manifest: dict[str, Any] | None = None, **more: Any) -> Verdict:
    told = retrying.after_timeout(MANIFEST if manifest is None else manifest)
    facts = Facts(outcome, False, timed_out=WHY, if_timed_out=told, **more)
    return judge(heeding_the_timeout(facts), Budgets(), 2, 1000.0)


@pytest.mark.parametrize(
    ("outcome", "more", "message"),
    [
        ("left", {}, WHY),
        (None, {"asked": f"{WHY}; was killed", "death": "by SIGKILL"}, f"{WHY}; was killed"),
        (None, {"death": "its process died"}, f"{WHY}; its process died"),
    ],
)
def test_its_end_is_a_failure_by_the_policy_of_its_code(
    outcome: str | None, more: dict[str, Any], message: str
) -> None:
    verdict = judged(outcome, **more)
    assert (verdict.state, verdict.delay) == (State.SCHEDULED, 5)
    assert verdict.budgets == Budgets(retries=1)
    assert verdict.reason == f"retry 1 of 2 after TimedOut: {message}"
    assert verdict.error == {"type": "TimedOut", "message": message, "traceback": ""}


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        ("succeeded", State.SUCCEEDED),
        ("cancelled", State.CANCELLED),
        ("held", State.HELD),
        ("unbegun", State.QUEUED),
        ("sleeping", State.SCHEDULED),
    ],
)
def test_another_end_of_its_own_stands(outcome: str, state: State) -> None:
    verdict = judged(outcome)
    assert (verdict.state, verdict.budgets.retries) == (state, 0)


def test_an_error_of_its_own_is_its_error_and_the_reason_names_the_timeout() -> None:
    error = {"type": "ValueError", "message": "no", "traceback": "…"}
    verdict = judged("failed", error=error)
    assert verdict.error == error
    assert verdict.reason == f"retry 1 of 2 after {WHY}; ValueError: no"


def test_code_that_gives_up_on_it_is_not_tried_again() -> None:
    verdict = judged("left", MANIFEST | {"gives_up": True})
    assert verdict.state is State.FAILED
    assert verdict.reason == f"TimedOut: {WHY}; not tried again: give_up_on names TimedOut"


def test_a_backoff_function_that_cannot_be_asked_is_told() -> None:
    verdict = judged("left", MANIFEST | {"function": True, "delays": None})
    assert verdict.delay == 1.0
    assert verdict.reason is not None and verdict.reason.endswith("could not be asked)")


def test_a_manifest_of_the_version_before_leaves_what_the_submission_says() -> None:
    assert retrying.after_timeout(None) is None
    facts = Facts("left", False, timed_out=WHY)
    assert judge(heeding_the_timeout(facts), Budgets(), 1, 0.0).state is State.SCHEDULED
    assert judge(heeding_the_timeout(facts), Budgets(), 0, 0.0).state is State.FAILED


def test_nothing_changes_while_its_time_lasts() -> None:
    facts = Facts("left", True, asked="a deploy")
    assert heeding_the_timeout(facts) is facts

"""Tests that the tasks resume where they were, without a daemon."""

from __future__ import annotations

import pytest
from shop_tasks import find_names, send_letters, thank

from taskd import testing

ARGS = {"first": 1, "last": 9}


def test_every_customer_gets_a_letter() -> None:
    whole = testing.run(send_letters, ARGS)
    assert whole.result == 8
    assert whole.items["letters"] == find_names(1, 9)


@pytest.mark.parametrize("count", range(1, 8))
def test_after_an_interruption_nobody_is_left_out_or_gets_two(count: int) -> None:
    first = testing.run(send_letters, ARGS, interrupt_after=("letters", count))
    rest = testing.run(send_letters, ARGS, resume_from=first.saved)
    assert first.interrupted
    assert rest.result == 8
    assert first.items["letters"] + rest.items["letters"] == find_names(1, 9)


def test_after_a_kill_only_the_letter_at_hand_is_sent_again() -> None:
    first = testing.run(send_letters, ARGS, kill_at=("letters", 3))
    rest = testing.run(send_letters, ARGS, resume_from=first.saved)
    assert first.items["letters"][:-1] + rest.items["letters"] == find_names(1, 9)


def test_an_ordinary_function_is_called_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    thank("Ada")
    assert capsys.readouterr().out == "thanked Ada\n"

"""What every store must hold a user to: so many tasks that are not over, so many bytes in them."""

from __future__ import annotations

from typing import Any

import pytest

from taskd import errors
from taskd.model.task import ENDED, State
from taskd.store.api import (
    Retry,
    Share,
    SubmitAll,
    Submitted,
)
from taskd.store.queries import Filter

LIVE = [state for state in State if state not in ENDED]
TWO = Share(2, None)
TEN_BYTES = Share(None, 10)


def is_full(bench: Any, share: Share, owner: int = 1000) -> bool:
    """Whether one more task of that owner is beyond ``share``; if not, it is there now."""
    (applied,) = bench.apply(bench.new(owner=owner, share=share, args=b"12345"))
    assert isinstance(applied.result, errors.LimitReached | Submitted)
    return isinstance(applied.result, errors.LimitReached)


@pytest.mark.parametrize("state", LIVE)
def test_whatever_is_not_over_counts(bench: Any, state: State) -> None:
    bench.in_state(state)
    bench.in_state(state)
    assert is_full(bench, TWO)
    assert len(bench.reader.tasks(Filter())) == 2
    assert is_full(bench, Share(2, 1000, None))
    assert not is_full(bench, Share(3, None))


@pytest.mark.parametrize("state", sorted(ENDED))
def test_what_has_ended_makes_room(bench: Any, state: State) -> None:
    bench.submit()
    task = bench.submit()
    assert is_full(bench, TWO)
    bench.ended(task, state)
    assert not is_full(bench, TWO)
    assert is_full(bench, TWO)


def test_the_bytes_of_arguments_are_counted_and_come_back(bench: Any) -> None:
    tasks = [bench.submit(args=b"1234", share=TEN_BYTES) for _ in range(2)]
    with pytest.raises(errors.LimitReached, match="8 bytes of arguments"):
        bench.submit(args=b"123", share=TEN_BYTES)
    bench.submit(args=b"12", share=TEN_BYTES)
    bench.cancel(tasks[0])
    bench.submit(args=b"1234", share=TEN_BYTES)
    assert is_full(bench, TEN_BYTES)


def test_each_owner_has_a_share_and_who_has_no_limit_is_counted_still(bench: Any) -> None:
    for _ in range(3):
        bench.submit(owner=1)
    assert is_full(bench, TWO, owner=1)
    assert not is_full(bench, TWO, owner=2)
    bench.submit(owner=1)


def test_who_is_refused_is_told_how_much_there_may_be_and_that_it_passes(bench: Any) -> None:
    bench.submit(owner=7)
    bench.submit(owner=7)
    with pytest.raises(errors.LimitReached) as caught:
        bench.submit(owner=7, share=TWO)
    assert str(caught.value) == (
        "user 7 has 2 tasks that are not over, and [access] tasks_per_user is 2: try again once "
        "some have ended"
    )
    with pytest.raises(errors.LimitReached, match=r"^the disk is full$"):
        bench.submit(owner=8, share=Share(None, None, "the disk is full"))


def test_what_is_known_already_is_answered_however_full_it_is(bench: Any) -> None:
    """A re-send after a lost reply must not hear that it was refused."""
    first = bench.new(share=Share(1, None), key="k")
    task = bench.one(first).task
    full = Share(1, None, "the disk is full")
    assert bench.one(first._replace(share=full)) == Submitted(task, False)
    assert bench.one(bench.new(key="k", share=Share(1, None))) == Submitted(task, False)


def test_what_is_known_by_its_key_alone_takes_room_too(bench: Any) -> None:
    """Of the last of the disk a key that is said again and again must leave something."""
    bench.submit(key="k")
    again = bench.new(key="k", share=Share(None, None, "the disk is full"))
    with pytest.raises(errors.LimitReached, match=r"^the disk is full$"):
        bench.one(again)
    assert bench.one(again._replace(key=None, share=None)).created, "nothing of it was kept"


def test_a_request_beyond_the_share_is_refused_as_a_whole_and_leaves_nothing(bench: Any) -> None:
    three = tuple(bench.new(share=TWO) for _ in range(3))
    refused, kept = bench.apply(SubmitAll(three), SubmitAll(three[:2]))
    assert isinstance(refused.result, errors.LimitReached)
    assert [each.created for each in kept.result] == [True, True]
    assert len(bench.reader.tasks(Filter())) == 2
    assert is_full(bench, TWO)


def test_a_retry_beyond_the_share_is_refused_but_of_a_held_one(bench: Any) -> None:
    failed = bench.in_state(State.FAILED)
    held = bench.in_state(State.HELD)
    bench.submit()
    with pytest.raises(errors.LimitReached):
        bench.one(Retry(failed, 1000, bench.now, TWO))
    assert bench.one(Retry(held, 1000, bench.now, TWO)) is State.QUEUED
    bench.cancel(held)
    assert bench.one(Retry(failed, 1000, bench.now, TWO)) is State.QUEUED
    assert is_full(bench, TWO)


def test_a_retry_beyond_the_bytes_or_without_room_for_anybody_is_refused(bench: Any) -> None:
    failed = bench.in_state(State.FAILED, args=b"12345")
    bench.submit(args=b"123456")
    for share in (TEN_BYTES, Share(None, None, "the disk is full")):
        with pytest.raises(errors.LimitReached):
            bench.one(Retry(failed, None, bench.now, share))
    assert bench.one(Retry(failed, None, bench.now, Share(None, 11))) is State.QUEUED


def test_shares_are_counted_over_reopening(bench: Any) -> None:
    bench.submit(share=TWO)
    bench.reopen()
    bench.submit()
    bench.reopen()
    assert is_full(bench, TWO)

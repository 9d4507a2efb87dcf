"""Submission ids: which of them say when they were made."""

from __future__ import annotations

from taskd.protocol import submission


def test_a_timed_id_says_when_it_was_made() -> None:
    found = submission.timed(1_796_000_000.25, b"12345678")
    assert len(found) == submission.SIZE
    assert found.endswith(b"12345678")
    assert submission.made(found, submission.TIMED) == 1_796_000_000.25


def test_timed_ids_are_in_the_order_of_their_times() -> None:
    times = [0.0, 1.0, 1.5, 255.0, 1e9, 1e9 + 1e-6, 4e9]
    ids = [submission.timed(time, b"\xff" * 8) for time in times]
    assert sorted(ids) == ids


def test_an_id_whose_kind_is_not_said_is_not_looked_into() -> None:
    assert submission.made(bytes(16), None) is None

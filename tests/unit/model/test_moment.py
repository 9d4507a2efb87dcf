"""Moments as people name them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from taskd.model import moment


@pytest.mark.parametrize(
    "text", ["2030-01-01T03:00+03:00", "2030-01-01 00:00Z", "20300101T000000+00:00"]
)
def test_iso_8601_with_an_offset_is_one_moment(text: str) -> None:
    assert moment.seconds(moment.parse(text)) == 1893456000.0


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("2030-01-01T03:00", "does not say in which zone: add an offset, \\+01:00, or Z for UTC"),
        ("2030-01-01", "does not say in which zone"),
        ("tomorrow", "'tomorrow' is not a time such as 2026-12-02T03:00\\+01:00"),
        ("2030-02-30T00:00Z", "is not a time such as"),
    ],
)
def test_any_other_text_is_refused_with_what_to_write(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        moment.parse(text)


def test_a_date_before_1970_is_past_like_any_other() -> None:
    assert moment.seconds(datetime(1066, 10, 14, tzinfo=UTC)) == 0.0


@pytest.mark.parametrize(
    ("wrong", "kind", "why"),
    [
        (datetime(2030, 1, 1), ValueError, "give it one"),
        (datetime(2300, 1, 1, tzinfo=UTC), ValueError, "too late"),
        (datetime.max.replace(tzinfo=timezone(-timedelta(hours=9))), ValueError, "too late"),
        (1893456000.0, TypeError, "a datetime with a zone, not float"),
        ("2030-01-01T00:00Z", TypeError, "not str"),
    ],
)
def test_what_names_no_moment_is_refused(wrong: Any, kind: type[Exception], why: str) -> None:
    with pytest.raises(kind, match=why):
        moment.seconds(wrong)

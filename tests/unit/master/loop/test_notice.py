"""Notices: every listener is told, at once and in order."""

from __future__ import annotations

import pytest

from taskd.master.loop.notice import Notice


def test_all_are_told_at_once_in_the_order_in_which_they_came() -> None:
    said: list[str] = []
    notice: Notice[[str]] = Notice()
    notice.to(lambda what: said.append(f"first {what}"), lambda what: said.append(f"then {what}"))
    notice.to(lambda what: said.append(f"last {what}"))
    notice("one")
    assert said == ["first one", "then one", "last one"]


def test_nothing_is_told_where_none_listens() -> None:
    notice: Notice[[]] = Notice()
    notice()


def test_what_a_listener_raises_reaches_the_teller_and_no_later_listener_is_told() -> None:
    """A zygote whose hello cannot be true is not connected: nothing goes on from it."""
    said: list[str] = []

    def refuses() -> None:
        raise ValueError("cannot be true")

    notice: Notice[[]] = Notice()
    notice.to(refuses, lambda: said.append("told"))
    with pytest.raises(ValueError, match="cannot be true"):
        notice()
    assert said == []


def test_a_listener_that_comes_meanwhile_is_told_too() -> None:
    said: list[str] = []
    notice: Notice[[]] = Notice()
    notice.to(lambda: notice.to(lambda: said.append("told")))
    notice()
    assert said == ["told"]

"""The daemon's own log: one line per transition, whatever others put into it."""

from __future__ import annotations

import os

import pytest
from forked import in_child

from taskd import log


def test_a_line_names_what_it_is_about(capfd: pytest.CaptureFixture[str]) -> None:
    log.info("running", task=7, worker=b"\xab\xcd" * 8, reason="two words")
    assert capfd.readouterr().err.split(" ", 1)[1] == (
        "running task=7 worker=abcdabcd reason='two words'\n"
    )


def test_a_level_stands_before_the_text(capfd: pytest.CaptureFixture[str]) -> None:
    log.warning("careful")
    log.error("too late")
    lines = [line.split(" ", 1)[1] for line in capfd.readouterr().err.splitlines()]
    assert lines == ["warning: careful", "error: too late"]


@pytest.mark.parametrize("text", ["a\nb", "a\r\nfake", "\x1b[2J", "tab\there", "\x00"])
def test_what_others_say_makes_no_second_line_and_no_control(
    capfd: pytest.CaptureFixture[str], text: str
) -> None:
    log.info(text, why=text)
    line = capfd.readouterr().err
    assert line.endswith("\n")
    assert line[:-1].isprintable()


def test_an_empty_value_is_seen(capfd: pytest.CaptureFixture[str]) -> None:
    log.info("x", key="")
    assert capfd.readouterr().err.endswith(" x key=''\n")


def test_under_the_journal_there_is_no_time_of_our_own(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    log.info("ready")
    assert capfd.readouterr().err == "ready\n"


def test_nowhere_to_write_to_is_no_error() -> None:
    def under_test() -> bool:
        os.close(2)
        log.info("into the void")
        return True

    assert in_child(under_test)

"""What a terminal and a pipe are sent."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from taskd.cli.output import text
from taskd.cli.output.text import Column, Look


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-5, "0s"),
        (0, "0s"),
        (0.49, "0.4s"),
        (59.9, "59s"),
        (60, "1m00s"),
        (125, "2m05s"),
        (3599, "59m59s"),
        (3800, "1h03m"),
        (86399, "23h59m"),
        (273600, "3d04h"),
    ],
)
def test_a_duration_is_short_and_never_rounded_up(seconds: float, shown: str) -> None:
    assert text.duration(seconds) == shown


def test_a_time_is_told_from_now() -> None:
    assert text.ago(100, 105) == "5s ago"
    assert text.ago(230, 105) == "in 2m05s"
    assert text.ago(None, 105) == "-"


@given(st.text())
def test_nothing_that_users_name_can_steer_a_terminal(name: str) -> None:
    assert text.clean(name).isprintable()
    assert name.isprintable() == (text.clean(name) == name)


def test_control_characters_stay_visible() -> None:
    assert text.clean("a\x1b[2Jb\nc\u202ed") == "a\\x1b[2Jb c\\u202ed"


@given(st.text(), st.integers(0, 40))
def test_a_cut_text_fits_and_an_uncut_one_is_whole(line: str, width: int) -> None:
    short = text.cut(line, width)
    assert text.columns(short) <= width
    assert (short == line) == (text.columns(line) <= width)


def test_wide_characters_take_two_columns_and_combining_ones_none() -> None:
    assert text.columns("日本") == 4
    assert text.columns("e\u0301") == 1
    assert text.cut("日本語", 5) == "日.."


def test_a_table_is_aligned_and_the_last_column_takes_what_is_left() -> None:
    heads = [Column("ID", right=True), Column("NAME"), Column("NOTE")]
    rows = [["7", "日本", "x"], ["1234", "b", "a long note"]]
    assert text.table(heads, rows, 18) == [
        "  ID  NAME  NOTE",
        "   7  日本  x",
        "1234  b     a lo..",
    ]


def test_a_table_without_rows_has_no_lines() -> None:
    assert text.table([Column("ID")], [], 80) == []


def test_a_pipe_gets_no_colour_no_redrawing_and_nothing_cut() -> None:
    look = Look.of(io.TextIOWrapper(io.BytesIO(), "utf-8"), {"TERM": "xterm"})
    assert look == Look(unicode=True, width=text.PLAIN_WIDTH)
    assert text.coloured("held", "held", look) == "held"


@pytest.fixture
def terminal() -> tuple[io.TextIOWrapper, int]:
    """The user's end of a pseudo terminal, and the other end's descriptor."""
    far, near = os.openpty()
    return open(near, "w", encoding="utf-8"), far


def test_a_terminal_has_its_size_and_colours(terminal: tuple[io.TextIOWrapper, int]) -> None:
    import fcntl
    import struct
    import termios

    stream, far = terminal
    fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", 31, 97, 0, 0))
    look = Look.of(stream, {"TERM": "xterm"})
    assert look == Look(redraw=True, colour=True, unicode=True, width=97, height=31)
    assert text.coloured("held", "held", look) == "\x1b[33mheld\x1b[0m"
    assert not Look.of(stream, {"TERM": "xterm", "NO_COLOR": "1"}).colour
    assert Look.of(stream, {"TERM": "xterm", "NO_COLOR": "1"}).redraw
    dumb = Look.of(stream, {"TERM": "dumb"})
    assert (dumb.redraw, dumb.colour) == (False, False)
    stream.close()
    os.close(far)


def test_a_terminal_that_was_never_told_its_size_has_the_usual_one(
    terminal: tuple[io.TextIOWrapper, int],
) -> None:
    stream, far = terminal
    assert Look.of(stream, {"TERM": "xterm"})[3:] == (80, 24)
    stream.close()
    os.close(far)


def test_a_stream_that_is_no_file_has_the_usual_size() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert Look.of(Terminal(), {"TERM": "xterm"}).width == 80


def test_a_terminal_of_another_encoding_gets_ascii_bars(tmp_path: Path) -> None:
    with open(tmp_path / "out", "w", encoding="latin-1") as stream:
        assert not Look.of(stream, {}).unicode

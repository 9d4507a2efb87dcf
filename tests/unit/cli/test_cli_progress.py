"""Bars: what is drawn, and that drawing over it again ends in the right picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, strategies as st

from taskd.cli.output import progress, text
from taskd.cli.output.progress import Bar, Painter, Printer
from taskd.cli.output.text import Look

WIDE = Look(redraw=True, unicode=True, width=100, height=24)


class Terminal(io.StringIO):
    """A terminal that keeps what it shows: enough of one for what Painter sends."""

    encoding = "utf-8"

    def __init__(self, width: int, height: int, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.rows: list[str] = [""]
        self.at = 0
        self.width, self.height = width, height
        monkeypatch.setattr(text, "_size", lambda stream: (self.width, self.height))

    def isatty(self) -> bool:
        return True

    def write(self, sent: str) -> int:
        import re

        for piece in re.split("(\x1b\\[[0-9;]*[A-Za-z]|\n|\r)", sent):
            self._put(piece)
        return len(sent)

    def _put(self, piece: str) -> None:
        if piece == "\n":
            self.at += 1
            if self.at == len(self.rows):
                self.rows.append("")
        elif piece.startswith("\x1b[") and piece.endswith("A"):
            self.at -= int(piece[2:-1])
            assert self.at >= 0, "the cursor was sent above the screen"
        elif piece == "\x1b[2K":
            self.rows[self.at] = ""
        elif piece == "\x1b[J":
            del self.rows[self.at :]
            self.rows.append("")
        elif piece and piece != "\r" and not piece.endswith("m"):
            self.rows[self.at] += piece
            assert text.columns(self.rows[self.at]) < self.width, "the line would wrap"

    def narrow(self, width: int) -> None:
        """Made narrower: a terminal wraps what no longer fits."""
        wrapped: list[str] = []
        for row in self.rows:
            wrapped += [row[n : n + width] for n in range(0, max(len(row), 1), width)]
        self.rows, self.at, self.width = wrapped, len(wrapped) - 1, width


def event(state: str, **more: Any) -> dict[str, Any]:
    return {"state": state, "attempt": 1, "revision": "r41", "reason": None} | more


def test_an_event_moves_a_bar_and_the_revision_is_kept_where_it_has_none() -> None:
    bar = progress.moved(Bar(1, "x", "queued"), event("running"))
    assert (bar.state, bar.attempt, bar.revision) == ("running", 1, "r41")
    bar = progress.moved(bar._replace(note="half"), event("held", revision=None, reason="why"))
    assert (bar.revision, bar.reason, bar.note) == ("r41", "why", "")


def test_progress_moves_a_bar() -> None:
    bar = progress.progressed(Bar(1, "x", "running"), {"done": 5, "total": 20, "note": "n"})
    assert (bar.part, bar.percent, bar.counted, bar.note) == (0.25, "25%", "5/20", "n")


def test_without_a_total_there_is_a_count_and_no_percentage() -> None:
    bar = progress.progressed(Bar(1, "x", "running"), {"done": 5, "total": None, "note": None})
    assert (bar.part, bar.percent, bar.counted) == (None, "", "5")


def test_a_hundred_per_cent_is_said_only_of_what_is_done() -> None:
    assert Bar(1, "x", "running", done=999, total=1000).percent == "99%"
    assert Bar(1, "x", "succeeded", done=999, total=1000).percent == "100%"
    assert Bar(1, "x", "running", done=7, total=5).part == 1.0
    assert Bar(1, "x", "running", done=0, total=0).part is None


def test_what_succeeded_is_done_whatever_it_told_last() -> None:
    bar = Bar(1, "x", "succeeded", done=14, total=15)
    assert (bar.percent, bar.counted) == ("100%", "")
    assert bar._replace(done=15).counted == "15/15"
    assert bar._replace(total=None).counted == "14"


def test_bars_are_aligned() -> None:
    bars = [
        Bar(17, "index", "running", 1, "r41", 530, 1000, "reading"),
        Bar(118, "日本", "succeeded", 2, "r42", 1000, 1000),
        Bar(3, "cmd", "held", 1, reason="no live revision knows it"),
        Bar(4, "x", "queued"),
    ]
    full, half = "█" * 30, "█" * 15 + "░" * 15
    assert progress.lines(bars, WIDE) == [
        f" 17  index  running    {half}   53%   530/1000  r41  reading",
        f"118  日本   succeeded  {full}  100%  1000/1000  r42",
        "  3  cmd    held       no live revision knows it",
        "  4  x      queued",
    ]


def test_a_terminal_without_utf_8_gets_ascii() -> None:
    bar = Bar(1, "x", "running", done=1, total=2)
    assert progress.drawn(bar, 8, Look()) == "####----"


def test_more_bars_than_lines_shows_what_runs_and_counts_the_rest() -> None:
    bars = [Bar(n, "x", "succeeded") for n in range(5)]
    bars += [Bar(5, "x", "queued"), Bar(6, "x", "running"), Bar(7, "x", "running")]
    shown = progress.lines(bars, WIDE._replace(height=5))
    assert [line.split()[:3] for line in shown] == [
        ["5", "x", "queued"],
        ["6", "x", "running"],
        ["7", "x", "running"],
        ["and", "5", "more:"],
    ]
    assert shown[-1] == "and 5 more: 5 succeeded"


bars_of_any_kind = st.lists(
    st.builds(
        Bar,
        st.integers(1, 10**12),
        st.text(max_size=60),
        st.sampled_from(sorted(text.COLOURS)),
        st.integers(0, 99),
        st.none() | st.text(max_size=20),
        st.none() | st.integers(0, 10**9),
        st.none() | st.integers(0, 10**9),
        st.text(max_size=80),
        st.none() | st.text(max_size=80),
    ),
    max_size=12,
)


@given(bars_of_any_kind, st.integers(1, 130), st.integers(1, 20), st.booleans())
def test_whatever_there_is_to_show_no_line_wraps_and_all_lines_fit(
    bars: list[Bar], width: int, height: int, colour: bool
) -> None:
    shown = progress.lines(bars, Look(True, colour, True, width, height))
    assert len(shown) <= max(height - 1, 2)
    for line in map(progress._without_colour, shown):
        assert text.columns(line) < max(width, 2)
        assert line.isprintable()


def test_a_second_drawing_stands_in_place_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal(80, 24, monkeypatch)
    painter = Painter(screen, {"TERM": "xterm"})
    for done in (1, 2, 3):
        painter.draw([Bar(1, "a", "running", done=done, total=3), Bar(2, "b", "queued")])
    assert [row.split()[:3] for row in screen.rows] == [
        ["1", "a", "running"],
        ["2", "b", "queued"],
        [],
    ]
    painter.draw([Bar(1, "a", "succeeded")])
    assert screen.rows == ["1  a  succeeded  " + "█" * 30 + "  100%", ""]


def test_a_head_stands_above_the_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal(80, 24, monkeypatch)
    painter = Painter(screen, {"TERM": "xterm"})
    painter.draw([Bar(1, "a", "queued")], head=["deploying r2"])
    painter.draw([Bar(1, "a", "queued")], head=["r2 serves"])
    assert screen.rows == ["r2 serves", "1  a  queued", ""]


def test_a_terminal_made_narrower_is_drawn_over_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal(100, 24, monkeypatch)
    painter = Painter(screen, {"TERM": "xterm", "NO_COLOR": "1"})
    bars = [Bar(n, "a", "running", 1, "r41", n, 9, "a note") for n in range(1, 5)]
    painter.draw(bars)
    screen.narrow(35)
    painter.draw(bars)
    assert len(screen.rows) == 5
    assert [row[:1] for row in screen.rows] == ["1", "2", "3", "4", ""]


def printed(states: Sequence[Bar]) -> list[str]:
    out = io.StringIO()
    printer = Printer(out)
    for bar in states:
        printer.progress(states, bar)
    return out.getvalue().splitlines()


def test_a_pipe_gets_a_line_for_each_state_change() -> None:
    out = io.StringIO()
    screen = progress.screen(out, {"TERM": "xterm"})
    for bar in (
        Bar(1, "x", "queued"),
        Bar(1, "x", "running", 2, "r42"),
        Bar(1, "x", "held", 2, "r42", reason="it\ndied"),
    ):
        screen.event([bar], bar)
    assert out.getvalue().splitlines() == [
        "1 x queued",
        "1 x running (attempt 2, r42)",
        "1 x held (attempt 2, r42): it died",
    ]


def test_a_pipe_gets_progress_once_a_tenth() -> None:
    bars = [Bar(1, "x", "running", done=n, total=100, note="n") for n in range(101)]
    assert printed(bars) == [f"1 x {n}% {n}/100 n" for n in range(10, 101, 10)]


def test_a_pipe_gets_no_progress_behind_the_end() -> None:
    stream = io.StringIO()
    printer = Printer(stream)
    ended = Bar(1, "x", "succeeded", done=14, total=15)
    printer.event([ended], ended)
    printer.progress([ended], ended)
    assert stream.getvalue() == "1 x succeeded\n"


def test_a_pipe_gets_no_progress_where_no_total_is_known() -> None:
    assert printed([Bar(1, "x", "running", done=n) for n in range(50)]) == []


def test_a_terminal_gets_bars_and_a_dumb_one_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(80, 24, monkeypatch)
    assert isinstance(progress.screen(terminal, {"TERM": "xterm"}), Painter)
    assert isinstance(progress.screen(terminal, {"TERM": "dumb"}), Printer)
    assert isinstance(progress.screen(terminal, {}), Printer)

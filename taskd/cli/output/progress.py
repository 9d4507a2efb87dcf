"""Followed tasks on a screen: one bar a line, redrawn in place; in a pipe, plain lines.

``Bar`` is what is known of one task; ``moved`` and ``progressed`` make the next one from what the
daemon sends; ``lines`` and ``plain`` turn bars into text. All these are pure. ``Painter`` and
``Printer`` write the text, and are the only ones here that touch a stream.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from taskd.cli.output import text
from taskd.cli.output.text import Look
from taskd.model.task import SETTLED
from taskd.record import Record

_WIDEST, _NARROWEST = 30, 8
_ENDED = frozenset(state.value for state in SETTLED)


class Bar(Record):
    """One task as it is shown. ``state`` is the shown one, with retrying and resuming."""

    id: int
    name: str
    state: str
    attempt: int = 0
    revision: str | None = None
    done: int | None = None
    total: int | None = None
    note: str = ""
    reason: str | None = None

    @property
    def part(self) -> float | None:
        """How much is done, 0 to 1; None if it is not known."""
        if self.state == "succeeded":
            return 1.0
        if self.total is None or self.done is None or self.total <= 0:
            return None
        return min(max(self.done / self.total, 0.0), 1.0)

    @property
    def percent(self) -> str:
        """Rounded down: 100 % is said only of what is done."""
        return "" if self.part is None else f"{int(self.part * 100)}%"

    @property
    def counted(self) -> str:
        """``530/1000``, or ``530`` where no total is known.

        Empty for a task that succeeded and whose last progress was less than the total.
        """
        if self.done is None or (self.state == "succeeded" and self.total not in (None, self.done)):
            return ""
        return str(self.done) if self.total is None else f"{self.done}/{self.total}"


def moved(bar: Bar, event: Mapping[str, Any]) -> Bar:
    """The bar after a numbered event of the stream ``follow``."""
    return bar._replace(
        state=event["state"],
        attempt=event["attempt"],
        revision=event["revision"] or bar.revision,
        reason=event["reason"],
        note="" if event["state"] in _ENDED else bar.note,
    )


def progressed(bar: Bar, progress: Mapping[str, Any]) -> Bar:
    """The bar after a progress message of the stream ``follow``."""
    return bar._replace(
        done=progress.get("done"), total=progress.get("total"), note=progress.get("note") or ""
    )


def lines(bars: Sequence[Bar], look: Look) -> list[str]:
    """A line for each bar that fits, aligned and within the width; then how many others are."""
    room = max(look.height - 1, 2)
    if len(bars) <= room:
        return _aligned(bars, look)
    shown = sorted(bars, key=lambda bar: (bar.state in _ENDED, bar.state != "running", bar.id))
    shown = sorted(shown[: room - 1], key=lambda bar: bar.id)
    states = Counter(bar.state for bar in bars) - Counter(bar.state for bar in shown)
    counts = ", ".join(f"{number} {state}" for state, number in states.items())
    return [
        *_aligned(shown, look),
        text.cut(f"and {len(bars) - len(shown)} more: {counts}", look.width - 1),
    ]


def _aligned(bars: Sequence[Bar], look: Look) -> list[str]:
    """Columns: id, name, state, bar, per cent, count, revision, note or reason."""
    longest = max(look.width // 3, 12)  # a long name leaves room for the rest
    before = _columns(
        [[f"{bar.id}", text.cut(text.clean(bar.name), longest)] for bar in bars], right={0}
    )
    states = _columns([[bar.state] for bar in bars])
    after = _columns(
        [[bar.percent, bar.counted, text.clean(bar.revision or "")] for bar in bars], right={0, 1}
    )
    fixed = sum(max(map(text.columns, part), default=0) + 2 for part in (before, states, after))
    room = look.width - 1 - fixed
    is_drawn = room >= _NARROWEST + 2 and any(bar.part is not None for bar in bars)
    # What is left is for the notes.
    width = min(_WIDEST, max(_NARROWEST, room * 2 // 3)) if is_drawn else 0
    return [
        _line(bar, f"{head}  ", state, [drawn(bar, width, look), tail], look)
        for bar, head, state, tail in zip(bars, before, states, after, strict=True)
    ]


def _columns(rows: Sequence[Sequence[str]], right: Iterable[int] = ()) -> list[str]:
    """Each row as one text; its cells as wide as the widest of their column."""
    widths = [max(map(text.columns, cells)) for cells in zip(*rows, strict=True)]
    return [
        "  ".join(text.pad(cell, widths[n], n in right) for n, cell in enumerate(row) if widths[n])
        for row in rows
    ]


def _line(bar: Bar, head: str, state: str, parts: Sequence[str], look: Look) -> str:
    """``parts`` and the note stand behind the state. The last column of the terminal stays free:
    some would wrap the line there."""
    note = text.clean(bar.reason or bar.note)
    if bar.part is None and bar.reason:
        parts = ()  # nothing to draw: why it does not run is worth the room
    tail = "  ".join(part for part in (*parts, note) if part).rstrip()
    width = look.width - 1
    left = width - text.columns(f"{head}{state}  ")
    if left < 0:
        return text.cut(f"{head}{state}", width)
    return f"{head}{text.coloured(state, bar.state, look)}  {text.cut(tail, left)}".rstrip()


def drawn(bar: Bar, width: int, look: Look) -> str:
    """The bar itself, ``width`` columns wide; spaces where it is not known how much is done."""
    full, empty = "█░" if look.unicode else "#-"
    if bar.part is None:
        return " " * width
    filled = int(bar.part * width)
    return full * filled + empty * (width - filled)


def plain(bar: Bar) -> str:
    """A state change as a line for a pipe: ``17 index running (attempt 2, r42): reason``."""
    where = [f"attempt {bar.attempt}"] if bar.attempt else []
    where += [text.clean(bar.revision)] if bar.revision else []
    about = f" ({', '.join(where)})" if where else ""
    why = f": {text.clean(bar.reason)}" if bar.reason else ""
    return f"{bar.id} {text.clean(bar.name)} {bar.state}{about}{why}"


class Painter:
    """Draws on a terminal, each time over what it drew before.

    Invariant: the cursor is at the beginning of the line below the drawing, so that all else that
    is printed, and the shell's prompt after an interruption, stands below it.
    """

    def __init__(self, stream: TextIO, environ: Mapping[str, str]) -> None:
        self._stream = stream
        self._environ = environ
        self._drawn: list[int] = []  # the columns of each line that is on the screen

    def event(self, bars: Sequence[Bar], changed: Bar) -> None:
        """Draw all bars."""
        self.draw(bars)

    progress = event

    def draw(self, bars: Sequence[Bar], head: Sequence[str] = ()) -> None:
        """Draw ``head``, as it is, and the bars below it, in place of what is on the screen."""
        look = Look.of(self._stream, self._environ)
        new = [
            *(text.cut(line, look.width - 1) for line in head),
            *lines(bars, look._replace(height=max(look.height - len(head), 3))),
        ]
        # A terminal that was made narrower has wrapped some of the lines that were drawn.
        rows = sum(max(1, -(-used // look.width)) for used in self._drawn)
        up = f"\x1b[{min(rows, look.height - 1)}A\r" if rows else "\r"
        body = "".join(f"\x1b[2K{line}\n" for line in new)
        self._stream.write(f"{up}{body}\x1b[J")
        self._stream.flush()
        self._drawn = [text.columns(_without_colour(line)) for line in new]


def _without_colour(line: str) -> str:
    return re.sub("\x1b\\[[0-9;]*m", "", line)


class Printer:
    """Prints lines: each state change, and progress whenever it has passed another tenth."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._tenths: dict[int, int] = {}

    def event(self, bars: Sequence[Bar], changed: Bar) -> None:
        """Print the changed bar's state."""
        print(plain(changed), file=self._stream, flush=True)

    def progress(self, bars: Sequence[Bar], changed: Bar) -> None:
        """Print the changed bar's progress, ``17 index 30% 300/1000 note``, if a tenth was passed
        since the last time, unless its end was printed: progress behind that is old."""
        if changed.state in _ENDED:
            return
        tenth = int((changed.part or 0.0) * 10)
        if tenth > self._tenths.get(changed.id, 0):
            self._tenths[changed.id] = tenth
            parts = (changed.name, changed.percent, changed.counted, changed.note)
            told = (text.clean(part) for part in parts if part)
            print(changed.id, *told, file=self._stream, flush=True)


def screen(stream: TextIO, environ: Mapping[str, str]) -> Painter | Printer:
    """A Painter for a terminal whose cursor moves, else a Printer."""
    return Painter(stream, environ) if Look.of(stream, environ).redraw else Printer(stream)

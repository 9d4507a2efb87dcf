"""Followed tasks on a screen: one bar a line, redrawn in place; in a pipe, plain lines.

``Bar`` is what is known of one task; ``moved`` and ``progressed`` make the next one from what the
daemon sends; ``lines`` and ``plain`` turn bars into text. All these are pure. ``Painter`` and
``Printer`` write the text, and are the only ones here that touch a stream.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TextIO

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
        """How much is done, 0 to 1; None if nobody knows."""
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

        What a task that succeeded last told of less than all says nothing beside its 100 %.
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
    """One line a bar, aligned and within the width; as many as fit, then what else there is."""
    room = max(look.height - 1, 2)
    if len(bars) <= room:
        return _aligned(bars, look)
    shown = sorted(bars, key=_rank)[: room - 1]
    return [
        *_aligned(sorted(shown, key=lambda bar: bar.id), look),
        text.cut(_rest(bars, shown), look.width - 1),
    ]


def _rank(bar: Bar) -> tuple[int, int]:
    """Where there is no room for all: what runs first, what is over last."""
    order = 2 if bar.state in _ENDED else int(bar.state != "running")
    return order, bar.id


def _rest(bars: Sequence[Bar], shown: Sequence[Bar]) -> str:
    states = Counter(bar.state for bar in bars) - Counter(bar.state for bar in shown)
    counts = ", ".join(f"{number} {state}" for state, number in states.items())
    return f"and {len(bars) - len(shown)} more: {counts}"


def _aligned(bars: Sequence[Bar], look: Look) -> list[str]:
    """Columns: id, name, state, bar, per cent, count, revision, note or reason."""
    before = _columns([[f"{bar.id}", _name(bar, look)] for bar in bars], right={0})
    states = _columns([[bar.state] for bar in bars])
    after = _columns(
        [[bar.percent, bar.counted, text.clean(bar.revision or "")] for bar in bars], right={0, 1}
    )
    fixed = sum(max(map(text.columns, part), default=0) + 2 for part in (before, states, after))
    width = _bar_width(bars, look.width - 1 - fixed)
    return [
        _line(head, state, _tail(bar, width, tail, look), bar, look)
        for bar, head, state, tail in zip(bars, before, states, after, strict=True)
    ]


def _name(bar: Bar, look: Look) -> str:
    """A long name leaves room for the rest."""
    return text.cut(text.clean(bar.name), max(look.width // 3, 12))


def _columns(rows: Sequence[Sequence[str]], right: Iterable[int] = ()) -> list[str]:
    """Each row as one text; its cells as wide as the widest of their column."""
    widths = [max(map(text.columns, cells)) for cells in zip(*rows, strict=True)]
    return [
        "  ".join(text.pad(cell, widths[n], n in right) for n, cell in enumerate(row) if widths[n])
        for row in rows
    ]


def _bar_width(bars: Sequence[Bar], room: int) -> int:
    """0 where no bar is known or too little room is left; some room is left for the notes."""
    if room < _NARROWEST + 2 or all(bar.part is None for bar in bars):
        return 0
    return min(_WIDEST, max(_NARROWEST, room * 2 // 3))


def _tail(bar: Bar, width: int, after: str, look: Look) -> str:
    note = text.clean(bar.reason or bar.note)
    if bar.part is None and bar.reason:
        return note  # nothing to draw: why it does not run is worth the room
    return "  ".join(part for part in (drawn(bar, width, look), after, note) if part).rstrip()


def _line(head: str, state: str, tail: str, bar: Bar, look: Look) -> str:
    """The last column of the terminal stays free: some would wrap the line there."""
    width = look.width - 1
    left = width - text.columns(f"{head}  {state}  ")
    if left < 0:
        return text.cut(f"{head}  {state}", width)
    return f"{head}  {text.coloured(state, bar.state, look)}  {text.cut(tail, left)}".rstrip()


def drawn(bar: Bar, width: int, look: Look) -> str:
    """The bar itself, ``width`` columns wide; spaces where nobody knows how much is done."""
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


def plain_progress(bar: Bar) -> str:
    """Progress as a line for a pipe: ``17 index 30% 300/1000 note``."""
    parts = (str(bar.id), text.clean(bar.name), bar.percent, bar.counted, text.clean(bar.note))
    return " ".join(part for part in parts if part)


class Screen(Protocol):
    """Where bars are shown: all are handed in each time, with the one that changed."""

    def event(self, bars: Sequence[Bar], changed: Bar) -> None: ...
    def progress(self, bars: Sequence[Bar], changed: Bar) -> None: ...


class Painter:
    """Draws on a terminal, each time over what it drew before.

    Invariant: the cursor is at the beginning of the line below the drawing, so that whatever else
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
        """Draw ``head``, as it is, and the bars below it."""
        look = Look.of(self._stream, self._environ)
        below = lines(bars, look._replace(height=max(look.height - len(head), 3)))
        self.show([*(text.cut(line, look.width - 1) for line in head), *below], look)

    def show(self, new: Sequence[str], look: Look) -> None:
        """Replace what is on the screen by these lines, each within the width."""
        body = "".join(f"\x1b[2K{line}\n" for line in new)
        self._stream.write(f"{self._up(look)}{body}\x1b[J")
        self._stream.flush()
        self._drawn = [text.columns(_without_colour(line)) for line in new]

    def _up(self, look: Look) -> str:
        """To the first line drawn; a terminal that was made narrower has wrapped some since."""
        rows = sum(max(1, -(-used // look.width)) for used in self._drawn)
        return f"\x1b[{min(rows, look.height - 1)}A\r" if rows else "\r"


def _without_colour(line: str) -> str:
    return re.sub("\x1b\\[[0-9;]*m", "", line)


class Printer:
    """Prints lines: each state change, and progress whenever it has passed another tenth."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._tenths: dict[int, int] = {}

    def event(self, bars: Sequence[Bar], changed: Bar) -> None:
        """Print the changed bar's state."""
        self._print(plain(changed))

    def progress(self, bars: Sequence[Bar], changed: Bar) -> None:
        """Print the changed bar's progress if a tenth was passed since the last time, unless its
        end was printed: progress that comes behind that tells nothing more."""
        if changed.state in _ENDED:
            return
        tenth = int((changed.part or 0.0) * 10)
        if tenth > self._tenths.get(changed.id, 0):
            self._tenths[changed.id] = tenth
            self._print(plain_progress(changed))

    def _print(self, line: str) -> None:
        self._stream.write(f"{line}\n")
        self._stream.flush()


def screen(stream: TextIO, environ: Mapping[str, str]) -> Screen:
    """What suits the stream."""
    if Look.of(stream, environ).redraw:
        return Painter(stream, environ)
    return Printer(stream)

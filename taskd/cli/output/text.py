"""Text for people: times, tables, and what a terminal may be sent.

Pure, but for ``Look.of``, which asks a stream what it is. What users name (tasks, notes, errors)
reaches a terminal only through ``clean``: a control character in it could do anything there.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TextIO

from taskd.record import Record

PLAIN_WIDTH = 10_000
"""The width of something that is no terminal: nothing is cut in a pipe."""

COLOURS = {
    "queued": "2",
    "scheduled": "2",
    "running": "36",
    "retrying": "33",
    "resuming": "36",
    "held": "33",
    "succeeded": "32",
    "failed": "31",
    "cancelled": "35",
}
"""The colour of each state, as the number of a terminal's SGR sequence."""


class Look(Record):
    """What a stream can show. ``redraw``: a terminal whose cursor moves; ``width`` in columns."""

    redraw: bool = False
    colour: bool = False
    unicode: bool = False
    width: int = PLAIN_WIDTH
    height: int = 24

    @classmethod
    def of(cls, stream: TextIO | None = None, environ: Mapping[str, str] = os.environ) -> Look:
        """What a stream, standard output if none is given, can show now: a terminal may have
        another size at the next call."""
        stream = stream or sys.stdout
        unicode = (stream.encoding or "").lower().replace("-", "") == "utf8"
        if not stream.isatty():
            return cls(unicode=unicode)
        moves = environ.get("TERM", "dumb") != "dumb"
        colour = moves and not environ.get("NO_COLOR")
        width, height = _size(stream)
        return cls(moves, colour, unicode, width, height)


def _size(stream: TextIO) -> tuple[int, int]:
    try:
        width, height = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        return 80, 24
    return width or 80, height or 24  # a terminal that was never told its size says 0


def clean(text: str) -> str:
    """``text`` on one line, with every control and formatting character made visible."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else " " if char in "\n\t" else ascii(char)[1:-1]
        for char in text
    )


def columns(text: str) -> int:
    """How many columns of a terminal ``text`` takes (wide characters take two)."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF")
        for char in text
    )


def cut(text: str, width: int) -> str:
    """``text`` in at most ``width`` columns, with ".." at the end if something is missing."""
    if columns(text) <= width:
        return text
    kept, used = "", 0
    for char in text:
        used += columns(char)
        if used > width - 2:
            break
        kept += char
    return (kept + "..")[: max(width, 0)]


def pad(text: str, width: int, right: bool = False) -> str:
    """``text`` filled with spaces to ``width`` columns; ``right``: at the right edge."""
    space = " " * (width - columns(text))
    return space + text if right else text + space


def coloured(text: str, state: str, look: Look) -> str:
    """``text`` in the colour of ``state``, where the stream has colours."""
    code = COLOURS.get(state)
    return f"\x1b[{code}m{text}\x1b[0m" if look.colour and code else text


_SCALES = ((86400, 3600, "d", "h"), (3600, 60, "h", "m"), (60, 1, "m", "s"))


def duration(seconds: float) -> str:
    """``0.4s``, ``12s``, ``2m05s``, ``1h03m``, ``3d04h``: never rounded up."""
    if 0 < seconds < 1:
        return f"{int(seconds * 10) / 10:.1f}s"
    whole = max(int(seconds), 0)
    for large, small, first, second in _SCALES:
        if whole >= large:
            return f"{whole // large}{first}{whole % large // small:02d}{second}"
    return f"{whole}s"


def ago(then: float | None, now: float) -> str:
    """``5s ago``, ``in 2m05s``, or a dash for a time that is not there."""
    if then is None:
        return "-"
    return f"in {duration(then - now)}" if then - now >= 1 else f"{duration(now - then)} ago"


class Column(Record):
    """A column of a table; numbers stand at the right edge."""

    title: str
    right: bool = False


def table(heads: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Aligned lines, two spaces between the columns; the last column takes what is left.

    Lines are cut at ``width`` columns. Without rows there are no lines at all.
    """
    if not rows:
        return []
    shown = [[clean(cell) for cell in row] for row in rows]
    titles = [head.title for head in heads]
    widths = [max(map(columns, cells)) for cells in zip(titles, *shown, strict=True)]
    return [
        cut("  ".join(map(pad, row, widths, [head.right for head in heads])).rstrip(), width)
        for row in [titles, *shown]
    ]

"""What is shown while the demo runs: a few sentences with their times, and the tasks' bars.

On a terminal the sentences stay above the bars, which are redrawn in place; elsewhere each
sentence and each change of a task's state is a line, and now and then a count of what is done.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Protocol, TextIO

from taskd.cli.output import progress, text
from taskd.cli.output.progress import Bar
from taskd.cli.output.text import Look

FRAME = 0.1
"""Seconds between two drawings, at least."""

SUMMED = 5.0
"""Seconds between two counts where there are no bars."""


class Stage(Protocol):
    """Where the demo is shown."""

    def say(self, sentence: str) -> None:
        """One sentence of what happens."""

    def changed(self, bar: Bar) -> None:
        """A task's state has changed."""

    def show(self, bars: Sequence[Bar]) -> None:
        """The bars as they are now; called often."""

    def close(self, bars: Sequence[Bar]) -> None:
        """Show them a last time; what is printed from now on stands below."""


class Terminal:
    """Draws in place."""

    def __init__(self, stream: TextIO, environ: Mapping[str, str], title: str) -> None:
        self._painter = progress.Painter(stream, environ)
        self._head = [title, ""]
        self._began = time.monotonic()
        self._drawn = 0.0
        self._bars: Sequence[Bar] = ()

    def say(self, sentence: str) -> None:
        self._head.append(_timed(self._began, sentence))
        self._draw()

    def changed(self, bar: Bar) -> None:
        pass  # the next drawing shows it

    def show(self, bars: Sequence[Bar]) -> None:
        self._bars = list(bars)
        if time.monotonic() - self._drawn >= FRAME:
            self._draw()

    def close(self, bars: Sequence[Bar]) -> None:
        self._bars = list(bars)
        self._draw()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        self._painter.draw(self._bars, [*self._head, ""])


class Lines:
    """Prints lines."""

    def __init__(self, stream: TextIO, title: str) -> None:
        self._stream = stream
        self._began = self._summed = time.monotonic()
        self._print(title)

    def say(self, sentence: str) -> None:
        self._print(_timed(self._began, sentence))

    def changed(self, bar: Bar) -> None:
        self._print(_timed(self._began, f"  {progress.plain(bar)}"))

    def show(self, bars: Sequence[Bar]) -> None:
        if bars and time.monotonic() - self._summed >= SUMMED:
            self._summed = time.monotonic()
            self._print(_timed(self._began, f"  {_count(bars)}"))

    def close(self, bars: Sequence[Bar]) -> None:
        pass

    def _print(self, line: str) -> None:
        self._stream.write(f"{line}\n")
        self._stream.flush()


def stage(title: str, plain: bool) -> Stage:
    """What suits standard output; ``plain``: lines in any case."""
    if plain or not Look.of(sys.stdout, os.environ).redraw:
        return Lines(sys.stdout, title)
    return Terminal(sys.stdout, os.environ, title)


def _timed(began: float, sentence: str) -> str:
    return f"{time.monotonic() - began:5.1f}s  {text.clean(sentence)}"


def _count(bars: Sequence[Bar]) -> str:
    """``412 of 1440 items; running: 6 on r1, 7 on r2``"""
    known = [bar for bar in bars if bar.total]
    done, total = sum(bar.done or 0 for bar in known), sum(bar.total or 0 for bar in known)
    running = [bar.revision or "" for bar in bars if bar.state == "running"]
    where = ", ".join(f"{running.count(name)} on {name}" for name in sorted(set(running)))
    return f"{done} of {total} files; running: {where or 'none'}"

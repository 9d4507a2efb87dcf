"""What is shown while the demo runs: a few sentences with their times, and the tasks' bars.

On a terminal the sentences stay above the bars, which are redrawn in place; elsewhere each
sentence and each change of a task's state is a line, and now and then a count of what is done.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping

from taskd.cli.output import progress, text
from taskd.cli.output.progress import Bar
from taskd.cli.output.text import Look

FRAME = 0.1
"""Seconds between two drawings, at least."""

SUMMED = 5.0
"""Seconds between two counts where there are no bars."""


class Stage:
    """Shows on standard output. ``bars``: by task; the caller changes them as it learns more."""

    def __init__(self, title: str, bars: Mapping[int, Bar], plain: bool) -> None:
        """``plain``: lines, on a terminal too."""
        is_drawn = not plain and Look.of(sys.stdout, os.environ).redraw
        self._painter = progress.Painter(sys.stdout, os.environ) if is_drawn else None
        self._bars = bars
        self._head = [title, ""]
        self._began = self._shown = time.monotonic()
        if not is_drawn:
            print(title, flush=True)

    def say(self, sentence: str) -> None:
        """One sentence of what happens."""
        line = f"{time.monotonic() - self._began:5.1f}s  {text.clean(sentence)}"
        if self._painter is None:
            print(line, flush=True)
        else:
            self._head.append(line)
            self.draw()

    def changed(self, bar: Bar) -> None:
        """A task's state has changed; the next drawing shows it."""
        if self._painter is None:
            self.say(f"  {progress.plain(bar)}")

    def show(self) -> None:
        """The bars as they are now; called often."""
        now = time.monotonic()
        if now - self._shown < (SUMMED if self._painter is None else FRAME) or not self._bars:
            return
        self._shown = now
        if self._painter is None:
            self.say(f"  {self._count()}")
        else:
            self.draw()

    def draw(self) -> None:
        """Draw at once, on a terminal; what is printed from now on stands below."""
        if self._painter is not None:
            self._painter.draw(list(self._bars.values()), [*self._head, ""])

    def _count(self) -> str:
        """``412 of 1440 files; running: 6 on r1, 7 on r2``"""
        known = [bar for bar in self._bars.values() if bar.total]
        done, total = sum(bar.done or 0 for bar in known), sum(bar.total or 0 for bar in known)
        running = [bar.revision or "" for bar in self._bars.values() if bar.state == "running"]
        where = ", ".join(f"{running.count(name)} on {name}" for name in sorted(set(running)))
        return f"{done} of {total} files; running: {where or 'none'}"

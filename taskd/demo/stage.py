"""What is shown while the demo runs: a few sentences with their times, and the tasks' bars.

On a terminal the sentences stay above the bars, which are redrawn in place; elsewhere each
sentence and each change of a task's state is a line, and now and then a count of what is done.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping

from taskd.cli.output import progress
from taskd.cli.output.progress import Bar
from taskd.cli.output.text import Look

COUNTED = 5.0  # seconds between two counts


class Stage:
    """Shows on standard output; lines, if ``plain``. The caller changes the ``bars``, by task."""

    def __init__(self, title: str, bars: Mapping[int, Bar], plain: bool) -> None:
        is_drawn = not plain and Look.of().redraw
        self._painter = progress.Painter(sys.stdout, os.environ) if is_drawn else None
        self._bars = bars
        self._head = [title, ""]
        self._counted = self.began = time.monotonic()
        if not is_drawn:
            print(title, flush=True)

    def say(self, sentence: str) -> None:
        """One sentence of what happens."""
        self._head.append(f"{time.monotonic() - self.began:5.1f}s  {sentence}")
        if self._painter is None:
            print(self._head[-1], flush=True)

    def changed(self, bar: Bar) -> None:
        """A task's state has changed."""
        if self._painter is None:
            self.say(f"  {progress.plain(bar)}")

    def show(self) -> None:
        """The bars as they are now, or their count; called several times a second."""
        bars = list(self._bars.values())
        if self._painter is not None:
            self._painter.draw(bars, [*self._head, ""])
        elif bars and time.monotonic() - self._counted >= COUNTED:
            self._counted = time.monotonic()
            done, total = sum(bar.done or 0 for bar in bars), sum(bar.total or 0 for bar in bars)
            on = [bar.revision or "" for bar in bars if bar.state == "running"]
            where = ", ".join(f"{on.count(name)} on {name}" for name in sorted(set(on)))
            self.say(f"  {done} of {total} files; running: {where or 'none'}")

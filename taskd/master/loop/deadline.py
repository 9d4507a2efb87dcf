"""A deadline in the own time of the processes that are waited for.

In the master. A process's own time is what it computes and what it sleeps; the time that it is
ready to run and gets no CPU is not its own. So a release that hangs, or computes for ever, is
refused after the seconds that it was given, and one that does its work on a busy machine is not.
Time is looked at when it may be over, and never in between.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable

from taskd.master.loop.loop import Loop
from taskd.posix import starved

LEAST = 0.1
"""Seconds of starving that are not worth another look."""


class Deadline:
    """``overdue`` is called once, when ``seconds`` of own time are over, unless ``cancel`` comes
    before.

    ``pids``: the processes that are waited for, as they are when it is looked at. The one that
    starved most decides; the master counts as well, since it has to read what they say.
    """

    __slots__ = ("_loop", "_overdue", "_pids", "_since", "_threads", "_timer")

    def __init__(
        self,
        loop: Loop,
        seconds: float,
        pids: Callable[[], Iterable[int]],
        overdue: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._pids = pids
        self._overdue = overdue
        self._begin(seconds)

    def cancel(self) -> None:
        self._timer.cancel()

    def _begin(self, seconds: float) -> None:
        self._since = time.monotonic()
        self._threads = self._look()
        self._timer = self._loop.after(seconds, self._over)

    def _over(self) -> None:
        """Time on the clock is over; what they starved of it is added."""
        passed = time.monotonic() - self._since
        lost = starved.lost(self._threads, self._look(), passed)
        if lost > LEAST:
            self._begin(lost)
        else:
            self._overdue()

    def _look(self) -> starved.Threads:
        found = {}
        for pid in (os.getpid(), *self._pids()):
            found.update(starved.look(pid))
        return found

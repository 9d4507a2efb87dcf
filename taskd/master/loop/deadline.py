"""A deadline that does not count the time in which processes get no CPU.

A process's own time is what it computes and sleeps; the time in which it is ready to run and gets
no CPU (starves) is not. So a release that hangs or computes for ever is refused after its seconds,
and a release that does its work on a busy machine is not. The times are read when the deadline may
be over, never in between.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable

from taskd.master.loop.loop import Loop
from taskd.posix import starved

LEAST = 0.1
"""Seconds; starving for less does not extend the deadline."""


class Deadline:
    """Calls ``overdue`` once, when ``seconds`` of own time are over, unless ``cancel`` is called
    before.

    ``pids``: gives the processes that are waited for now. The one that starved most decides; the
    master counts as well, since it has to read what they send.
    """

    __slots__ = ("_loop", "_overdue", "_pids", "_seconds", "_since", "_threads", "_timer")

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
        self._seconds = seconds
        self._since = time.monotonic()
        self._threads = self._look()
        self._timer = self._loop.after(seconds, self._over)

    def _over(self) -> None:
        """The time on the clock is over: what is left of their own time, if they starved? (However
        late this is: what they starved behind the deadline puts it off no further.)"""
        passed = time.monotonic() - self._since
        lost = starved.lost(self._threads, self._look(), passed)
        left = self._seconds - (passed - lost)
        if min(left, lost) > LEAST:
            self._begin(left)
        else:
            self._overdue()

    def _look(self) -> starved.Threads:
        found = {}
        for pid in (os.getpid(), *self._pids()):
            found.update(starved.look(pid))
        return found

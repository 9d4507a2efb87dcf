"""What nobody tells us of, looked at every few seconds while the daemon serves.

In the master, one timer. That somebody has set the clock: durations go by the monotonic clock, but
when a scheduled task is due is a date, kept over restarts, and the timer for it was set before. Set
forward (or after a suspend), what has become due is due. Set back, everything that waits would wait
for as long as the clock was set back: its date moves along, so that nothing waits longer than it
was asked to. That the state directory is what it was (``statedir``), the sockets' files are in
their places (``doors``), and no log of a task is far too long (``tasklogs``). A damaged store is
told of for as long as it is used.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from taskd import log
from taskd.errors import StoreError
from taskd.master.clients.listeners import Doors
from taskd.master.loop.loop import Look
from taskd.master.loop.trouble import UNWRITABLE
from taskd.store.api import Applied, Shift

if TYPE_CHECKING:
    from taskd.master.master import Master

EVERY = 5.0
"""Seconds between two rounds."""

SET = 1.0
"""Seconds that the clock must have moved to count as set; less is a clock being kept right."""


class Rounds:
    """Begun once the daemon serves, and again after each exec."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._ahead = _ahead()
        self._doors = Look(master.loop, "its sockets cannot be made anew", Doors(master).look)
        self._state = Look(master.loop, "its state directory is unreadable", master.statedir.look)

    def begin(self) -> None:
        """What the clock is compared with is from before: dates that are older count on it."""
        self._go()

    def _go(self) -> None:
        self._master.loop.after(EVERY, self._go)
        self.look_at_the_clock()
        if self._master.is_serving and not self._master.is_frozen:
            self._state.ask()
            self._doors.ask()
            self._master.tasklogs.look()
        if self._master.damage is not None:
            self._master.loop.troubles.tell(UNWRITABLE, self._master.damage, lasts=2 * EVERY)

    def look_at_the_clock(self) -> None:
        """For who is about to tell from a date how long something has lasted."""
        by = _ahead() - self._ahead
        if abs(by) < SET:
            return
        log.warning("the clock was set", by=f"{by:+.0f} s")
        self._ahead += by
        for revision in self._master.revisions:
            revision.since += by
            revision.draining_since += by if revision.draining_since else 0.0
        if by < 0:
            self._bring_forward(by)
        else:
            self._master.dispatch.wake_due()

    def _bring_forward(self, by: float) -> None:
        def done(outcome: Applied | StoreError) -> None:
            if isinstance(outcome, StoreError):
                self._master.loop.after(EVERY, lambda: self._bring_forward(by))
            self._master.dispatch.wake_due()

        self._master.write(Shift(by), done)


def _ahead() -> float:
    """Seconds that the clock is ahead of the monotonic one: changes only when it is set."""
    return time.time() - time.monotonic()

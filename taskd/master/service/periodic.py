"""Checks every 5 s, while the daemon serves, what no event reports.

* **The clock.** Durations go by the monotonic clock, but a scheduled task is due at a date, kept
  over restarts, and its timer was set before. If the clock is set forward (or after a suspend),
  tasks whose date has passed are due at once. If it is set back, the date of each waiting task is
  moved back as far: no task waits longer than it was asked to.
* **Files**: whether the state directory was replaced (``loop.statedir``), a socket's file is gone
  (``socket_files``), or a task's log is far too long (``attempts.tasklogs``).
* **The store's damage**: reported as a trouble for as long as it lasts.
"""

from __future__ import annotations

import time

from taskd import log
from taskd.errors import StoreError
from taskd.master.attempts import Dispatch, TaskLogs
from taskd.master.fleet import Revisions
from taskd.master.loop import UNWRITABLE, Life, LifeState, Look, Loop, StateDirectory, Storage
from taskd.master.service.socket_files import SocketFiles
from taskd.store.api import (
    Applied,
    Shift,
)

EVERY = 5.0
"""Seconds between two checks."""

SET = 1.0
"""Seconds that the clock must have moved to count as set; less is NTP's correction."""


class Periodic:
    """Begun once the daemon serves, and again after each exec."""

    def __init__(
        self,
        loop: Loop,
        life: Life,
        statedir: StateDirectory,
        socket_files: SocketFiles,
        storage: Storage,
        revisions: Revisions,
        tasklogs: TaskLogs,
        dispatch: Dispatch,
    ) -> None:
        self._loop = loop
        self._life = life
        self._storage = storage
        self._revisions = revisions
        self._tasklogs = tasklogs
        self._dispatch = dispatch
        self._ahead = _ahead()  # as it was when the dates kept here were last right
        self._sockets = Look(loop, "its sockets cannot be made anew", socket_files.look)
        self._state = Look(loop, "its state directory is unreadable", statedir.look)

    def begin(self) -> None:
        self._loop.after(EVERY, self.begin)
        self.look_at_the_clock()
        if self._life.state is LifeState.SERVING:
            self._state.ask()
            self._sockets.ask()
            self._tasklogs.look()
        if self._storage.damage is not None:
            self._loop.troubles.tell(UNWRITABLE, self._storage.damage, lasts=2 * EVERY)

    def look_at_the_clock(self) -> None:
        """Move the dates if the clock was set. Called also before a duration is computed from a
        date."""
        by = _ahead() - self._ahead
        if abs(by) < SET:
            return
        log.warning("the clock was set", by=f"{by:+.0f} s")
        self._ahead += by
        for revision in self._revisions:
            revision.since += by
            revision.draining_since += by if revision.draining_since else 0.0
        if by < 0:
            self._shift_dates(by)
        else:
            self._dispatch.wake_due()

    def _shift_dates(self, by: float) -> None:
        """Of waiting tasks, in the store; again later, while it cannot be written."""

        def done(outcome: Applied | StoreError) -> None:
            if isinstance(outcome, StoreError):
                self._loop.after(EVERY, lambda: self._shift_dates(by))
            self._dispatch.wake_due()

        self._storage.write(Shift(by), done)


def _ahead() -> float:
    """Seconds that the clock is ahead of the monotonic clock: changes only when it is set."""
    return time.time() - time.monotonic()

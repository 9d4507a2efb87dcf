"""What is looked at every few seconds while the daemon serves, since no process tells of it.

* **The clock.** Durations go by the monotonic clock, but when a scheduled task is due is a date,
  kept over restarts, and the timer for it was set before. If the clock is set forward (or after a
  suspend), what has become due is due. If it is set back, everything that waits would wait for as
  long as the clock was set back: its date moves along, so that nothing waits longer than it was
  asked to.
* **Files**: that the state directory is what it was (``loop.statedir``), the sockets' files are in
  their places (``socket_files``), and no log of a task is far too long (``attempts.tasklogs``).
* **The store's damage**, which is told of for as long as it is there.
"""

from __future__ import annotations

import time

from taskd import log
from taskd.errors import StoreError
from taskd.master.attempts import Dispatch, TaskLogs
from taskd.master.fleet import Revisions
from taskd.master.loop import UNWRITABLE, Life, LifeState, Look, Loop, StateDirectory, Storage
from taskd.master.service.socket_files import SocketFiles
from taskd.store.api import Applied, Shift

EVERY = 5.0
"""Seconds between two looks."""

SET = 1.0
"""Seconds that the clock must have moved to count as set; less is a clock being kept right."""


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
        self._ahead = _ahead()  # dates that are older count on the clock as it is now
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
        """Before a date is compared with the clock to tell how long something has lasted."""
        by = _ahead() - self._ahead
        if abs(by) < SET:
            return
        log.warning("the clock was set", by=f"{by:+.0f} s")
        self._ahead += by
        for revision in self._revisions:
            revision.since += by
            revision.draining_since += by if revision.draining_since else 0.0
        if by < 0:
            self._bring_forward(by)
        else:
            self._dispatch.wake_due()

    def _bring_forward(self, by: float) -> None:
        def done(outcome: Applied | StoreError) -> None:
            if isinstance(outcome, StoreError):
                self._loop.after(EVERY, lambda: self._bring_forward(by))
            self._dispatch.wake_due()

        self._storage.write(Shift(by), done)


def _ahead() -> float:
    """Seconds that the clock is ahead of the monotonic one: changes only when it is set."""
    return time.time() - time.monotonic()

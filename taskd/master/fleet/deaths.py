"""Kills what a dead worker left behind: its attempt is over once no process of it lives.

The worker's parent or the kernel reports the death itself. Processes that the worker left are found
by session, by mark, by control group, and among the master's own children; they are killed, and
looked for again until none is left. The loop goes on meanwhile: a leftover may hang in the kernel
for hours.
"""

from __future__ import annotations

from collections.abc import Callable

from taskd.master.fleet.groups import Groups
from taskd.master.loop import Loop
from taskd.posix import limits, mark, process, tree
from taskd.posix.cleaners import Patience
from taskd.record import Record

FIRST, LATEST = 0.05, 1.0
"""Seconds between two kills of leftovers: at first, and at most."""


class Dead(Record):
    """A worker whose process, ``pid`` with that ``start`` (0: not told), has ended. ``mark``: gives
    the mark of its descendants, 0 if it has none; raises OSError. ``had_master``: its descendants
    have become the master's children."""

    worker: bytes
    pid: int
    start: int
    mark: Callable[[], int]
    patience: Patience
    had_master: bool


class Deaths(Record):
    """``kept``: gives the children of the master that are no leftovers."""

    loop: Loop
    groups: Groups
    kept: Callable[[], set[int]]

    def once_over(
        self,
        dead: Dead,
        over: Callable[[], None],
        waiting: Callable[[], None] = lambda: None,
        pause: float = FIRST,
    ) -> None:
        """Kill the leftovers; call ``over`` once none is left, and ``waiting`` first if some are.

        Raises OSError if they cannot be found just now; then neither was called: the next attempt
        would run beside a leftover.
        """
        with limits.every_descriptor():
            # While a leftover hangs, another process may come to have the pid of the dead one.
            now = process.start_time(dead.pid)
            is_reused = dead.start and now not in (None, dead.start)
            left = not is_reused and tree.kill_session(dead.pid, dead.patience)
            left = mark.kill_wearers(dead.mark(), dead.patience) or left
            left = self.groups.end(dead.worker, dead.patience) or left
            left = (dead.had_master and tree.strike(self.kept(), dead.patience)) or left
        if not left:
            over()
            return
        waiting()
        longer = min(2 * pause, LATEST)
        self.loop.after(pause, lambda: self.once_over(dead, over, pause=longer))

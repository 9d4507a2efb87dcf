"""Dead and over: a worker's attempt is over once nothing that the worker left behind lives.

Death itself is a fact that the worker's parent or the kernel reports. What the dead worker left is
found by session, by mark, by control group, and among the master's own children; it is killed, and
looked for again until nothing is left. Nothing waits for it meanwhile: a leftover may hang in the
kernel for hours.
"""

from __future__ import annotations

from collections.abc import Callable

from taskd.master.fleet.groups import Groups
from taskd.master.loop import Loop
from taskd.posix import limits, mark, tree
from taskd.posix.cleaners import Patience
from taskd.record import Record

FIRST, LATEST = 0.05, 1.0
"""Seconds between two looks at leftovers that are being killed: at first, and when they will not
die."""


class Dead(Record):
    """A worker whose process has ended. ``session``: its pid, or None if that number may be
    another process's by now. ``mark``: what its descendants are told by, 0 if it has none (raises
    OSError). ``had_master``: what it left behind has become the master's children."""

    worker: bytes
    session: int | None
    mark: Callable[[], int]
    patience: Patience
    had_master: bool


class Deaths:
    """``kept``: the children of the master that are no leftovers."""

    def __init__(self, loop: Loop, groups: Groups, kept: Callable[[], set[int]]) -> None:
        self._loop = loop
        self._groups = groups
        self._kept = kept

    def once_over(
        self,
        dead: Dead,
        over: Callable[[], None],
        waiting: Callable[[], None] = lambda: None,
        pause: float = FIRST,
    ) -> None:
        """Call ``over`` once nothing is left of ``dead``, and ``waiting`` first if that is later.
        Raises OSError with nothing done if it cannot be told just now: the two would overlap."""
        if not self._kill_leftovers(dead):
            over()
            return
        waiting()
        longer = min(2 * pause, LATEST)
        self._loop.after(pause, lambda: self.once_over(dead, over, pause=longer))

    def _kill_leftovers(self, dead: Dead) -> bool:
        """True if any is left."""
        with limits.every_descriptor():
            left = dead.session is not None and tree.kill_session(dead.session, dead.patience)
            left = mark.kill_wearers(dead.mark(), dead.patience) or left
            left = self._groups.end(dead.worker, dead.patience) or left
            return (dead.had_master and tree.strike(self._kept(), dead.patience)) or left

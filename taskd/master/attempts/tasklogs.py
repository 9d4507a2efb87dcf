"""The limit of the tasks' logs, where the workers do not see to it.

A worker keeps its task's log short itself (``worker.loglimit``), unless it cannot: its task holds
the interpreter's lock while a program writes, has become another program, or died of its flood. So
the master looks too, seldom, and by size alone. To cut takes long where much is cut: a zygote does
that, since nobody waits for one.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from taskd.posix import growing

if TYPE_CHECKING:
    from taskd.master.master import Master

AGAIN = 0.5
"""Seconds between two looks at logs that were too long at the last one."""

FACTOR = 2
"""So many times its limit a log must be before it is anyone's business but its worker's."""


class TaskLogs:
    """Looks at the logs of all running tasks in each round, and at each log when its attempt is
    over."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._again = False

    def look(self) -> None:
        """Ask for the cut of every log that is far too long; soon again, if there is one."""
        self._again = False
        for running in self._master.attempts.all():
            self._again |= self._cut(running.task, FACTOR)
        if self._again:
            self._master.loop.after(AGAIN, self._look_again)

    def _look_again(self) -> None:
        if self._again:
            self.look()

    def on_end(self, task: int) -> None:
        """Nobody writes any more: cut what its worker did not live to cut."""
        self._cut(task, 1)

    def _cut(self, task: int, factor: int) -> bool:
        limit = self._master.config.logs.max_size
        path = self._master.places.task_log(task)
        if limit is None:
            return False
        with contextlib.suppress(OSError):
            if growing.takes(os.stat(path, follow_symlinks=False)) > factor * limit:
                return self._ask(path, limit)
        return False

    def _ask(self, path: str, limit: int) -> bool:
        for revision in self._master.revisions.live():
            if revision.channel is not None:
                revision.channel.send({"type": "cut", "log": path, "size": limit})
                return True
        return False

"""The limit of the tasks' logs, where the workers do not see to it.

A worker keeps its task's log short itself, unless it cannot: its task holds the interpreter's lock
while a program writes, has become another program, or died of its flood. So the master looks too,
seldom, and by size alone. To cut takes long where much is cut: a zygote does that, since nothing
waits for one.
"""

from __future__ import annotations

import contextlib
import os

from taskd.config import Config
from taskd.master.attempts.attempts import Attempts
from taskd.master.fleet import Revisions
from taskd.master.loop import Loop
from taskd.paths import Places
from taskd.posix import growing

FACTOR = 2
"""So many times its limit a log must be before it is anyone's business but its worker's."""


class TaskLogs:
    """Looks at the logs of all running tasks now and then, and at each log when its attempt is
    over."""

    def __init__(
        self, loop: Loop, config: Config, places: Places, revisions: Revisions, attempts: Attempts
    ) -> None:
        self._loop = loop
        self._limit = config.logs.max_size
        self._places = places
        self._revisions = revisions
        self._attempts = attempts
        self._looks_again = False

    def look(self) -> None:
        """Ask for the cut of every log that is far too long; soon again, if there is one."""
        asked = [self._cut(running.task, FACTOR) for running in self._attempts.all()]
        if any(asked) and not self._looks_again:
            self._looks_again = True
            self._loop.again(self._look_again)

    def _look_again(self) -> None:
        self._looks_again = False
        self.look()

    def on_end(self, task: int) -> None:
        """Nothing writes to it any more: cut what its worker did not live to cut."""
        self._cut(task, 1)

    def _cut(self, task: int, factor: int) -> bool:
        """True if a zygote was asked."""
        if self._limit is None:
            return False
        path = self._places.task_log(task)
        with contextlib.suppress(OSError):
            if growing.takes(os.stat(path, follow_symlinks=False)) > factor * self._limit:
                order = {"type": "cut", "log": path, "size": self._limit}
                return any(r.zygote.tell(order) for r in self._revisions.live())
        return False

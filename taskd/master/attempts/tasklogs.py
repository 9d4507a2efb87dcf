"""The limit of the tasks' logs, for logs that a worker cannot cut.

A worker cuts its task's log itself, unless its task holds the interpreter's lock while a program
writes, has become another program by exec, or has killed the worker by writing too much. So the
master looks at the sizes too, seldom. Cutting much takes long: a zygote does it, since no client
waits for a zygote.
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
"""How many times its limit a running task's log must be before the master has it cut."""


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
        """Have every log cut that is longer than FACTOR limits; if one is, look again soon."""
        asked = [self.cut(running.task, FACTOR) for running in self._attempts.all()]
        if any(asked) and not self._looks_again:
            self._looks_again = True
            self._loop.again(self._look_again)

    def _look_again(self) -> None:
        self._looks_again = False
        self.look()

    def cut(self, task: int, factor: int = 1) -> bool:
        """Ask a zygote to cut the task's log if it is longer than ``factor`` limits. Called with 1
        at an attempt's end: its worker may have died before it cut the log. Returns whether a
        zygote was asked."""
        if self._limit is None:
            return False
        path = self._places.task_log(task)
        with contextlib.suppress(OSError):
            if growing.takes(os.stat(path, follow_symlinks=False)) > factor * self._limit:
                order = {"type": "cut", "log": path, "size": self._limit}
                return any(r.zygote.tell(order) for r in self._revisions.live())
        return False

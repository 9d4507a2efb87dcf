"""``[daemon] drain_limit``: how long a revision may drain before its tasks must leave it.

At the limit its tasks are asked to leave at their next safe point; who has not left after another
``cancel_grace`` is ended by force. Both continue on the current revision from what is saved, and
are shown as interrupted. A task that the current revision cannot go on with is let be: ended here,
it could only be started here again. (Workers that a daemon before this one left are not ours to
command; see ``recovery``.)

The time counts from when the revision began to drain, by the clock, so that an exec does not start
it anew; the grace counts from when this image asked.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from taskd import log
from taskd.master.loop.loop import Timer
from taskd.model.revision import RevisionState
from taskd.model.routing import can_run
from taskd.model.worker import WorkerState

if TYPE_CHECKING:
    from taskd.master.fleet.revision import Revision
    from taskd.master.fleet.worker import Worker
    from taskd.master.master import Master

LONGEST_WAIT = 3600.0
"""Seconds after which the clock is looked at again: it may have been set."""


class DrainLimit:
    """One timer, for the next thing to do; ``asked``: when (monotonic), by revision number."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._timer: Timer | None = None
        self._asked: dict[int, float] = {}
        self._forced: set[int] = set()

    def look(self) -> None:
        """Do what is due, and wait for what is next. Called once the master serves: a revision
        begins to drain at no other time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        limit = self._master.config.daemon.drain_limit
        if limit is None or self._master.stopping:
            return
        self._master.rounds.look_at_the_clock()
        waits = [self._turn(r, limit) for r in self._draining()]
        wait = min((each for each in waits if each is not None), default=None)
        if wait is not None:
            self._timer = self._master.loop.after(min(wait, LONGEST_WAIT), self.look)

    def _draining(self) -> list[Revision]:
        return [r for r in self._master.revisions if r.state is RevisionState.DRAINING]

    def _turn(self, revision: Revision, limit: float) -> float | None:
        """Seconds until the next look at ``revision``; None: there is nothing more to do."""
        left = revision.draining_since + limit - time.time()
        if left > 0:
            return left
        if revision.number in self._forced:
            return None
        grace = self._master.config.daemon.cancel_grace
        if revision.number not in self._asked:
            self._ask(revision, limit)
        left = self._asked[revision.number] + grace - time.monotonic()
        if left > 0:
            return left
        self._force(revision, limit, grace)
        return None

    def _ask(self, revision: Revision, limit: float) -> None:
        self._asked[revision.number] = time.monotonic()
        for worker in self._master.workers.of(revision):
            if worker.running is None or worker.state is not WorkerState.RUNNING:
                continue
            if (why := self._stuck(worker)) is not None:
                log.warning("past drain_limit, and stays", task=worker.running.task, why=why)
                continue
            self._master.attempts.ask(worker.running.task, "leave", _why(revision, limit))

    def _force(self, revision: Revision, limit: float, grace: float) -> None:
        self._forced.add(revision.number)
        for worker in self._master.workers.of(revision):
            if worker.running is None or worker.state is not WorkerState.RUNNING:
                continue
            if self._stuck(worker) is None:
                why = f"{_why(revision, limit)}, and did not leave in {grace:g} s"
                log.warning("ended by force", task=worker.running.task, reason=why)
                self._master.workers.kill(worker, why)

    def _stuck(self, worker: Worker) -> str | None:
        """Why its task cannot go on elsewhere; None: it can."""
        current, running = self._master.revisions.current, worker.running
        assert current is not None and running is not None
        if current not in self._master.attempts.takers(running.task):
            return f"{current.name} has refused its saved state"
        version = worker.revision.tasks[running.name]["version"]
        why = can_run(current.tasks, running.name, version)
        return None if why is None else f"{current.name} {why}"


def _why(revision: Revision, limit: float) -> str:
    return f"{revision.name} has drained for longer than drain_limit ({limit:g} s)"

"""Older revisions drain: which tasks must leave after a deploy, and ``[daemon] drain_limit``.

After a deploy the idle workers of older revisions exit, and tasks with ``on_deploy`` "checkpoint"
are asked to leave. At the limit all tasks of a revision are asked to leave at their next safe
point; those that have not left after another ``cancel_grace`` are killed. They continue on the
current revision from what is saved, and are shown as interrupted. A task that the current revision
cannot go on with keeps running: ended here, it could only be started on its old revision again. (A
master cannot command unknown workers that a daemon before it left; see ``recovery.unowned``.)

The limit counts from when the revision began to drain, by the wall clock, so that an exec does not
start it anew; the grace counts from when this image asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from taskd import log
from taskd.config import Config
from taskd.master.attempts import Attempts
from taskd.master.fleet import Revision, Revisions, Running, Worker, Workers
from taskd.master.loop import Life, Loop, Timer
from taskd.model.plan import PINNED
from taskd.model.revision import RevisionState
from taskd.model.routing import can_run
from taskd.model.task import OnDeploy
from taskd.model.worker import WorkerState

LONGEST_WAIT = 3600.0
"""Seconds after which the wall clock is read again: it may have been set."""


class Draining:
    """``look_at_the_clock``: called before a date is compared with the clock."""

    look_at_the_clock: Callable[[], None]

    def __init__(
        self,
        loop: Loop,
        life: Life,
        config: Config,
        revisions: Revisions,
        workers: Workers,
        attempts: Attempts,
    ) -> None:
        self._loop = loop
        self._life = life
        self._config = config
        self._revisions = revisions
        self._workers = workers
        self._attempts = attempts
        self._timer: Timer | None = None
        self._asked: dict[int, float] = {}  # when (monotonic), by revision number
        self._forced: set[int] = set()

    # ── after a deploy ───────────────────────────────────────────────────────────────────────

    def let_old_ones_leave(self, target: Revision, unfit: Collection[int]) -> None:
        """``unfit``: the tasks that the new revision could not take in the plan; they stay."""
        for worker in self._workers.in_state(WorkerState.IDLE):
            if worker.revision is not target:
                self._workers.retire(worker)
        for worker in self._workers:
            running = worker.running
            if running is None or worker.revision is target:
                continue
            if running.task not in unfit and self._moves(running, worker.revision, target):
                self._attempts.ask(running.task, "leave", f"deploy of {target.name}")

    def _moves(self, running: Running, source: Revision, target: Revision) -> bool:
        if running.on_deploy != OnDeploy.CHECKPOINT.value:
            return False
        if running.row.budgets.interruptions >= PINNED:
            return False
        entry = source.tasks.get(running.name)  # None: the directory of its release is gone
        return entry is not None and can_run(target.tasks, running.name, entry["version"]) is None

    # ── the limit ────────────────────────────────────────────────────────────────────────────

    def look(self) -> None:
        """Do what the limit requires now, and set a timer for the next step. Called when the daemon
        begins to serve: a revision begins to drain at no other time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        limit = self._config.daemon.drain_limit
        if limit is None or self._life.is_stopping:
            return
        self.look_at_the_clock()
        draining = [r for r in self._revisions if r.state is RevisionState.DRAINING]
        waits = [self._turn(revision, limit) for revision in draining]
        wait = min((each for each in waits if each is not None), default=None)
        if wait is not None:
            self._timer = self._loop.after(min(wait, LONGEST_WAIT), self.look)

    def _turn(self, revision: Revision, limit: float) -> float | None:
        """Ask or kill the tasks of ``revision`` if that is due. Returns the seconds until the next
        step; None: there is none."""
        left = revision.draining_since + limit - time.time()
        if left > 0:
            return left
        if revision.number in self._forced:
            return None
        why = f"{revision.name} has drained for longer than drain_limit ({limit:g} s)"
        grace = self._config.daemon.cancel_grace
        if revision.number not in self._asked:
            self._asked[revision.number] = time.monotonic()
            for task, worker in self._running(revision):
                if (stays := self._why_it_stays(task, worker)) is not None:
                    log.warning("past drain_limit, and stays", task=task.task, why=stays)
                else:
                    self._attempts.ask(task.task, "leave", why)
        left = self._asked[revision.number] + grace - time.monotonic()
        if left > 0:
            return left
        self._forced.add(revision.number)
        why = f"{why}, and did not leave in {grace:g} s"
        for task, worker in self._running(revision):
            if self._why_it_stays(task, worker) is None:
                log.warning("ended by force", task=task.task, reason=why)
                self._workers.kill(worker, why)
        return None

    def _running(self, revision: Revision) -> list[tuple[Running, Worker]]:
        return [
            (worker.running, worker)
            for worker in self._workers.of(revision)
            if worker.running is not None and worker.state is WorkerState.RUNNING
        ]

    def _why_it_stays(self, running: Running, worker: Worker) -> str | None:
        """Why the task cannot go on on the current revision; None: it can."""
        current = self._revisions.current
        assert current is not None
        if current not in self._attempts.takers(running.task):
            return f"{current.name} has refused its saved state"
        why = can_run(current.tasks, running.name, worker.revision.tasks[running.name]["version"])
        return None if why is None else f"{current.name} {why}"

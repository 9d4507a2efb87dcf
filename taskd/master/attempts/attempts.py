"""Attempts in motion: which task runs where, what it was asked, and what it reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from taskd.config import Config
from taskd.master.fleet import OomWatch, Revision, Revisions, Running, Worker, Workers
from taskd.master.loop import Loop, Notice
from taskd.model.routing import Held, route
from taskd.model.worker import WorkerState
from taskd.protocol.records import PROGRESS_PARTS
from taskd.record import Record
from taskd.store.values import Kind, Taken

ALONE = 500
"""Tasks at most that go their own way at a time, since a revision has refused their state."""


class Offered(Record):
    """What a worker without a task is offered for: a ready task of that queue, of a kind that goes
    to the revision with that number."""

    queue: str
    revision: int


class Unfit(Record):
    """A task whose state the revisions with these numbers have refused."""

    queue: str
    kind: Kind
    revisions: set[int]


class Routes:
    """``of``: to which of the live revisions, by number, each kind of task goes; the same rule as
    ``model.routing.route``. Asked for at each end of a task: made anew only when a revision comes
    or goes. No one may change it: the writer thread reads it as well."""

    def __init__(self) -> None:
        self._made_of: list[tuple[int, dict[str, Any]]] = []
        self._routes: dict[Kind, int] = {}

    def of(self, live: Iterable[Revision]) -> Mapping[Kind, int]:
        made_of = [(revision.number, revision.tasks) for revision in live]
        if made_of != self._made_of:  # the same objects are equal at a glance
            self._made_of, self._routes = made_of, {}
            for number, tasks in made_of:
                for name, entry in tasks.items():
                    for saved_version in (None, *entry["reads"]):
                        self._routes.setdefault(Kind(name, saved_version), number)
        return self._routes


class Attempts:
    """Owns every Running: by task, and counted by queue. ``offered``: by id, the workers for which
    the store is taking a task; ``unsent``: those that have one and were not sent it yet. Notices:
    ``changed`` (a place was taken or is free again), ``sent`` (a worker has its task, or was
    adopted with it), ``released`` (an attempt is over), ``progressed``."""

    def __init__(
        self, loop: Loop, config: Config, revisions: Revisions, workers: Workers, oom: OomWatch
    ) -> None:
        self._loop = loop
        self._config = config
        self._revisions = revisions
        self._kill = workers.kill
        self._oom = oom
        self._by_task: dict[int, Running] = {}
        self._workers: dict[int, Worker] = {}
        self._unfit: dict[int, Unfit] = {}
        self._routes = Routes()
        self.offered: dict[bytes, Offered] = {}
        self.unsent: dict[bytes, Taken] = {}
        self.occupied: Counter[str] = Counter()
        self.changed: Notice[[]] = Notice()
        self.progressed: Notice[[Running]] = Notice()
        self.sent: Notice[[Worker]] = Notice()
        self.released: Notice[[Running]] = Notice()

    # ── who runs what ────────────────────────────────────────────────────────────────────────

    def __contains__(self, task: int) -> bool:
        return task in self._by_task

    def get(self, task: int) -> Running | None:
        return self._by_task.get(task)

    def worker_of(self, task: int) -> Worker | None:
        return self._workers.get(task)

    def __len__(self) -> int:
        """How many places are taken, in all queues."""
        return len(self._by_task)

    def all(self) -> list[Running]:
        return list(self._by_task.values())

    def without_worker(self) -> list[Running]:
        """Those whose worker a daemon before this one has left, and is not known."""
        return [running for running in self.all() if running.task not in self._workers]

    def hold(self, running: Running, worker: Worker | None) -> None:
        """The task occupies a place in its queue from now on; ``worker`` None: an unknown one."""
        self._by_task[running.task] = running
        self.occupied[running.queue] += 1
        if worker is not None:
            self._workers[running.task] = worker
            worker.running = running
        self.changed()

    def release(self, running: Running) -> None:
        """The task's place in its queue is free again.

        May come twice for one attempt (its end is recorded while its worker dies), and then after
        the next attempt has begun, which it must not touch.
        """
        if self._by_task.get(running.task) is not running:
            return
        del self._by_task[running.task]
        self.occupied[running.queue] -= 1
        if not self.occupied[running.queue]:
            del self.occupied[running.queue]
        worker = self._workers.pop(running.task, None)
        if worker is not None and worker.running is running:
            worker.running = None
        self.released(running)
        self.changed()

    def disown(self, task: int) -> None:
        """Its worker is dead: nothing about the task can be told to it any more."""
        self._workers.pop(task, None)

    def entry_of(self, running: Running) -> dict[str, Any] | None:
        """Its task in the manifest of the revision that runs it; None: not known any more."""
        worker = self._workers.get(running.task)
        for revision in [worker.revision] if worker is not None else self._revisions:
            if revision.name == running.row.revision:
                return revision.tasks.get(running.name)
        return None

    # ── who can go on with it ────────────────────────────────────────────────────────────────

    def takers(self, task: int) -> list[Revision]:
        """The live revisions, but for those that said they cannot take this task's state."""
        unfit = self._unfit.get(task)
        refused = unfit.revisions if unfit is not None else ()
        return [r for r in self._revisions.live() if r.number not in refused]

    def refuse(self, running: Running, revision: Revision) -> None:
        """That revision has said that it cannot take this task's state."""
        kind = Kind(running.name, running.row.saved_version)
        self._unfit.setdefault(running.task, Unfit(running.queue, kind, set())).revisions.add(
            revision.number
        )

    def alone(self) -> dict[str, dict[int, int]]:
        """The tasks that a live revision has refused, by queue, each with the number of the
        revision that is to have it."""
        found: dict[str, dict[int, int]] = {}
        for task, unfit in islice(self._unfit.items(), ALONE):
            taker = route(self.takers(task), *unfit.kind)
            if not isinstance(taker, Held):
                found.setdefault(unfit.queue, {})[task] = taker.number
        return found

    def forget(self, task: int) -> None:
        """It is settled: another life of it is another matter."""
        self._unfit.pop(task, None)

    def routes(self) -> Mapping[Kind, int]:
        """Of all kinds that a live revision can run."""
        return self._routes.of(self._revisions.live())

    # ── asking and hearing ───────────────────────────────────────────────────────────────────

    def ask(self, task: int, kind: str, why: str) -> None:
        """Ask a running task to "leave" or to be "cancel"-led at its next safe point, or to leave
        for its "timeout", which is a failure.

        One that was not sent yet is asked once it was: a worker forgets what it is asked of an
        attempt that it does not have.
        """
        running, worker = self._by_task.get(task), self._workers.get(task)
        if running is None or worker is None or running.asked == "cancel":
            return
        if running.asked == "timeout" and kind == "leave":
            return  # which it would do in any case
        running.asked, running.why = kind, why
        if worker.id not in self.unsent:
            _tell_wish(running, worker)
        if kind == "cancel":
            self.enforce(running, worker)

    def on_sent(self, worker: Worker) -> None:
        """The worker has its task now: tell it what was asked while the claim was on its way."""
        self._oom.look()
        if worker.running is not None and worker.running.asked is not None:
            _tell_wish(worker.running, worker)
        self.sent(worker)

    def enforce(self, running: Running, worker: Worker) -> None:
        """A cancelled task that does not leave within the grace is killed."""
        grace = self._config.daemon.cancel_grace

        def overdue() -> None:
            if worker.running is running and worker.state is WorkerState.RUNNING:
                self._kill(worker, f"did not leave in {grace:g} s, and was killed")

        self._loop.after(grace, overdue)

    def on_report(self, worker: Worker, message: dict[str, Any]) -> None:
        """The latest progress, or that it waits for room on the disk."""
        running = worker.running
        if running is None or not running.is_attempt(message["task"], message["attempt"]):
            return
        if message["type"] == "waiting":
            running.waiting = message["message"] or None
        else:
            running.progress = {part: message[part] for part in PROGRESS_PARTS}
            self.progressed(running)


def _tell_wish(running: Running, worker: Worker) -> None:
    assert running.asked is not None
    about = {"task": running.task, "attempt": running.attempt, "why": running.why}
    if running.asked == "timeout":
        worker.tell({"type": "cancel", "timeout": True} | about)
    else:
        worker.tell({"type": running.asked} | about)

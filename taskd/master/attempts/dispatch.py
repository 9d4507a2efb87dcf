"""Dispatch: which waiting task goes to which worker, and when to look again.

Level-triggered: ``kick`` says that something changed; each look starts from the store and the
workers as they are now, and is repeated while the store cannot be read. A few ready tasks are read
per queue that has any, never the backlog. A task needs a place in its queue, and one below the
ceiling for all ([app] max_workers). The claim (worker and attempt) is committed before the task is
sent.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import cbor2

from taskd import log
from taskd.config import Config
from taskd.errors import StoreError
from taskd.master.attempts.attempts import Attempts
from taskd.master.attempts.endings import Ending, Endings
from taskd.master.fleet import (
    Groups,
    Revision,
    Revisions,
    Running,
    Worker,
    Workers,
    drop_slot,
    known_of,
)
from taskd.master.loop import PASSING, UNWRITABLE, Life, Look, Loop, Notice, Storage, Timer
from taskd.model.endings import Facts
from taskd.model.routing import Held, route
from taskd.model.worker import WorkerEvent, WorkerState
from taskd.paths import Places
from taskd.posix import files, memory
from taskd.slot import layout
from taskd.store.api import Applied, Claim, Hold, Row, Wake

BATCH = 64
"""Ready tasks read from one queue at a time, and queues at a time."""

INLINE = 64 * 1024
"""Arguments and saved state above this go to the worker in a file, not through its socket."""

HANDED_AT_ONCE = 4 << 20
"""Bytes of such arguments and state after which a look ends, and the next turn of the loop has the
next one: clients are served in between."""

LONGEST_WAIT = 3600.0
"""Seconds after which due times are looked at again although nothing said so (clock jumps)."""


class Dispatch:
    """``kick``: a task, a worker or a place in a queue has changed. ``wake_due``: move what is due
    to ``queued``, and set the timer for the next. Both act once, soon, however often they are
    called. ``claimed`` is told of each claim that was answered."""

    def __init__(
        self,
        loop: Loop,
        life: Life,
        config: Config,
        places: Places,
        storage: Storage,
        revisions: Revisions,
        groups: Groups,
        workers: Workers,
        attempts: Attempts,
        endings: Endings,
    ) -> None:
        self._loop = loop
        self._life = life
        self._config = config
        self._places = places
        self._storage = storage
        self._revisions = revisions
        self._groups = groups
        self._workers = workers
        self._attempts = attempts
        self._endings = endings
        self._due: Timer | None = None
        self._last = ""  # the queue that had its turn last
        self._handed = 0  # bytes that this look has put into files
        self.claimed: Notice[[]] = Notice()
        self.kick = Look(loop, "no waiting task is started", self._look).ask
        self.wake_due = Look(loop, "no scheduled task is queued", self._wake_due).ask

    def _look(self) -> None:
        if not self._life.may_dispatch:
            return
        if self._storage.damage is not None:
            self._loop.troubles.tell(UNWRITABLE, self._storage.damage)
            return
        self._handed = 0
        wanted: Counter[Revision] = Counter()
        for queue in self._in_turn():
            if self._places_left(wanted) <= 0:
                break
            self._fill(queue, wanted)
            self._last = queue
            if self._handed >= HANDED_AT_ONCE:
                self.kick()  # the workers that are wanted besides are counted then
                return
        for revision in self._revisions.live():
            self._workers.want(revision, wanted[revision])

    def why_full(self, queue: str) -> str | None:
        """Why no task of ``queue`` can be started before one that runs has ended; None: one can."""
        places, most = self._config.concurrency(queue), self._config.max_workers
        if self._attempts.occupied[queue] >= places:
            return (
                f"waits for a place in queue '{queue}': tasks run in all of its places ({places})"
            )
        if len(self._attempts) >= most:
            return f"waits for a place: as many tasks run as may at once ({most})"
        return None

    def _in_turn(self) -> Iterator[str]:
        """The queues in which a task is ready, beginning behind the one that had its turn last:
        where the ceiling for all of them leaves few places, none takes them all."""
        last = self._last
        yield from self._queued(last)
        yield from itertools.takewhile(lambda queue: queue <= last, self._queued(""))

    def _queued(self, after: str) -> Iterator[str]:
        """Read in pages: a caller that stops early has not read them all."""
        while page := self._storage.reader.queued(after, BATCH):
            yield from page
            after = page[-1]

    def _places_left(self, wanted: Counter[Revision]) -> int:
        """How many tasks more may run, of whatever queue, beside those that workers are coming for;
        as many run on older revisions as here."""
        return self._config.max_workers - len(self._attempts) - wanted.total()

    def _fill(self, queue: str, wanted: Counter[Revision]) -> None:
        """Claim ready tasks of ``queue`` for idle workers; count the workers that are missing."""
        free = self._config.concurrency(queue) - self._attempts.occupied[queue]
        room = min(free, self._places_left(wanted), BATCH)
        if room <= 0:
            return
        claiming = sum(1 for r in self._attempts.all() if r.attempt == 0 and r.queue == queue)
        rows = self._storage.reader.ready(queue, room + claiming)
        for row in [row for row in rows if row.id not in self._attempts][:room]:
            if self._handed >= HANDED_AT_ONCE:
                return
            revision = route(self._attempts.takers(row.id), row.name, row.saved_version)
            if isinstance(revision, Held):
                log.warning("held", task=row.id, reason=revision.reason)
                self._storage.write(Hold(row.id, revision.reason, time.time()), lambda _: None)
                continue
            worker = self._workers.take_idle(revision, self._config.limits_of(queue))
            if worker is None:
                wanted[revision] += 1
            else:
                self._claim(row, worker)

    # ── claiming ─────────────────────────────────────────────────────────────────────────────

    def _claim(self, row: Row, worker: Worker) -> None:
        """Commit the claim, then send the task. After a transient error before the claim the worker
        is idle again, so that other tasks can have it."""
        try:
            owner = cbor2.dumps([worker.id, *worker.identity])  # may read /proc
            message = self._message(row, worker)
            self._groups.limit(worker, self._config.limits_of(row.queue))
        except PASSING as error:
            worker.take(WorkerEvent.UNCLAIM)
            self._loop.troubles.tell("a task cannot be handed to its worker", error)
            self._loop.again(self.kick)
            return
        entry = worker.revision.tasks[row.name]
        on_deploy = row.on_deploy.value if row.on_deploy else entry["on_deploy"]
        now, revision = time.time(), worker.revision.name
        claimed_as = row._replace(worker=owner, revision=revision, started=row.started or now)
        running = Running(
            row.id, row.queue, row.name, row.owner, on_deploy, known=known_of(claimed_as)
        )
        self._attempts.hold(running, worker)

        def claimed(outcome: Applied | StoreError) -> None:
            if isinstance(outcome, Applied) and outcome.result is not None:
                running.attempt = outcome.result
                self._start(message, running, worker)
            else:
                self._unclaim(message, running, worker)
                if isinstance(outcome, StoreError):
                    self._loop.again(self.kick)
            self.claimed()

        self._storage.write(Claim(row.id, owner, revision, now), claimed)

    def _unclaim(self, message: dict[str, Any], running: Running, worker: Worker) -> None:
        if "load" in message:
            with contextlib.suppress(OSError):  # the next start removes it
                os.unlink(message["load"])
        self._attempts.release(running)
        if worker.state is WorkerState.CLAIMED:
            worker.take(WorkerEvent.UNCLAIM)

    def _start(self, message: dict[str, Any], running: Running, worker: Worker) -> None:
        """The claim is committed: send the task, unless its worker died meanwhile."""
        if worker.state is not WorkerState.CLAIMED:
            facts = Facts("unbegun", False, reason="its worker was gone before it began")
            self._endings.settle(
                Ending(running, facts, lambda _: drop_slot(self._places.slots, worker))
            )
            return
        worker.take(WorkerEvent.SENT)
        worker.tell(message | {"attempt": running.attempt, "at": time.time()})
        self._attempts.on_sent(worker)
        log.info(
            "running",
            task=running.task,
            attempt=running.attempt,
            worker=worker.id,
            revision=worker.revision.name,
        )

    def _message(self, row: Row, worker: Worker) -> dict[str, Any]:
        """What the worker will be told, all but the attempt. Raises StoreError, and OSError where
        there is no room for the file with its arguments: nothing is claimed then."""
        message: dict[str, Any] = {
            "type": "run",
            "task": row.id,
            "name": row.name,
            "version": row.version if row.saved_version is None else row.saved_version,
            "log": self._places.task_log(row.id),
            "log_limit": self._config.logs.max_size,
            "scratch": self._places.task_scratch(row.id),
        }
        if row.saved_version is not None:
            memory.return_large()
        reader = self._storage.reader
        args, saved = reader.args(row.id), reader.saved(row.id)
        if len(args) + len(saved or b"") <= INLINE:
            return message | {"args": args, "saved": saved}
        path = os.path.join(self._places.slots, layout.file_name(worker.id, layout.LOAD))
        with open(files.open_own(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
            self._handed += file.write(cbor2.dumps({"args": args, "saved": saved}))
        return message | {"args": b"", "saved": None, "load": path}

    # ── due times ────────────────────────────────────────────────────────────────────────────

    def on_scheduled(self, run_at: float | None) -> None:
        """A task is scheduled for ``run_at`` (Unix seconds), or queued (None)."""
        if run_at is not None:
            self.wake_due()
        self.kick()

    def _wake_due(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if not self._life.is_up or (next_due := self._storage.reader.next_due()) is None:
            return
        now = time.time()
        if next_due > now:
            self._due = self._loop.after(min(next_due - now, LONGEST_WAIT), self.wake_due)
            return

        def woken(outcome: Applied | StoreError) -> None:
            if isinstance(outcome, StoreError):
                self._loop.again(self.wake_due)
                return
            self.kick()
            self.wake_due()

        self._storage.write(Wake(now, BATCH), woken)

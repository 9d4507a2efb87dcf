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
from typing import TYPE_CHECKING, Any

import cbor2

from taskd import log
from taskd.errors import StoreError
from taskd.master.fleet.revision import Revision
from taskd.master.fleet.running import Running
from taskd.master.fleet.worker import Worker
from taskd.master.loop.loop import AGAIN, Look, Timer
from taskd.master.loop.trouble import PASSING, UNWRITABLE
from taskd.model.endings import Facts
from taskd.model.routing import Held, route
from taskd.model.worker import WorkerEvent, WorkerState
from taskd.posix import files, memory
from taskd.store.api import Applied, Claim, Hold, Row, Wake

if TYPE_CHECKING:
    from taskd.master.master import Master

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
    """Runs once after whatever changed, however often it was kicked."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._due: Timer | None = None
        self._last = ""  # the queue that had its turn last
        self._handed = 0  # bytes that this look has put into files
        self.kick = Look(master.loop, "no waiting task is started", self._look).ask
        """Something changed: a task, a worker, a place in a queue."""
        self.wake_due = Look(master.loop, "no scheduled task is queued", self._wake_due).ask
        """Move what is due to ``queued``, and set the timer for the next."""

    def _look(self) -> None:
        if not self._master.is_serving or self._master.is_frozen:
            return
        if self._master.damage is not None:
            self._master.loop.troubles.tell(UNWRITABLE, self._master.damage)
            return
        self._master.after_drain.look()
        self._handed = 0
        wanted: Counter[Revision] = Counter()
        for queue in self._in_turn():
            if self._places(wanted) <= 0:
                break
            self._fill(queue, wanted)
            self._last = queue
            if self._handed >= HANDED_AT_ONCE:
                self.kick()  # who else is wanted is counted then
                return
        for revision in self._master.revisions.live():
            self._master.workers.want(revision, wanted[revision])

    def why_full(self, queue: str) -> str | None:
        """Why no task of ``queue`` can be started before one that runs has ended; None: one can."""
        settings, attempts = self._master.config, self._master.attempts
        places = settings.concurrency(queue)
        if attempts.occupied[queue] >= places:
            return (
                f"waits for a place in queue '{queue}': tasks run in all of its places ({places})"
            )
        if attempts.count >= settings.max_workers:
            return f"waits for a place: as many tasks run as may at once ({settings.max_workers})"
        return None

    def _in_turn(self) -> Iterator[str]:
        """The queues in which a task is ready, beginning behind the one that had its turn last:
        where the ceiling for all of them leaves few places, none takes them all."""
        last = self._last
        yield from self._queued(last)
        yield from itertools.takewhile(lambda queue: queue <= last, self._queued(""))

    def _queued(self, after: str) -> Iterator[str]:
        """Read in pages: who stops early has not read them all."""
        while page := self._master.reader.queued(after, BATCH):
            yield from page
            after = page[-1]

    def _places(self, wanted: Counter[Revision]) -> int:
        """How many tasks more may run, of whatever queue, beside those that workers are coming for;
        as many run on older revisions as here."""
        return self._master.config.max_workers - self._master.attempts.count - wanted.total()

    def _fill(self, queue: str, wanted: Counter[Revision]) -> None:
        """Claim ready tasks of ``queue`` for idle workers; count the workers that are missing."""
        attempts = self._master.attempts
        room = self._master.config.concurrency(queue) - attempts.occupied[queue]
        room = min(room, self._places(wanted))
        if room <= 0:
            return
        for row in self._ready(queue, min(room, BATCH)):
            if self._handed >= HANDED_AT_ONCE:
                return
            revision = self._route(row)
            if isinstance(revision, Held):
                self._hold(row, revision.reason)
                continue
            limits = self._master.config.limits_of(queue)
            worker = self._master.workers.take_idle(revision, limits)
            if worker is None:
                wanted[revision] += 1
            else:
                self._try_to_claim(row, worker)

    def _ready(self, queue: str, count: int) -> list[Row]:
        """The first ``count`` ready tasks whose claim is not on its way already."""
        attempts = self._master.attempts
        claiming = sum(1 for r in attempts.all() if r.attempt == 0 and r.queue == queue)
        rows = self._master.reader.ready(queue, count + claiming)
        return [row for row in rows if row.id not in attempts][:count]

    def _route(self, row: Row) -> Revision | Held:
        live = [(r, r.name, r.tasks) for r in self._master.attempts.takers(row.id)]
        return route(live, row.name, row.saved_version)

    def _hold(self, row: Row, reason: str) -> None:
        log.warning("held", task=row.id, reason=reason)
        self._master.write(Hold(row.id, reason, time.time()), lambda _: None)

    # ── claiming ─────────────────────────────────────────────────────────────────────────────

    def _try_to_claim(self, row: Row, worker: Worker) -> None:
        """A task that cannot be handed over just now must not keep others from it."""
        try:
            self._claim(row, worker)
        except PASSING as error:
            worker.take(WorkerEvent.UNCLAIM)
            self._master.loop.troubles.tell("a task cannot be handed to its worker", error)
            self._master.loop.after(AGAIN, self.kick)

    def _claim(self, row: Row, worker: Worker) -> None:
        """Raises what passes, with nothing done."""
        owner = cbor2.dumps([worker.id, *worker.identity])  # which may have to be looked up
        message = self._message(row, worker)
        self._master.groups.limit(worker, self._master.config.limits_of(row.queue))
        entry = worker.revision.tasks[row.name]
        on_deploy = row.on_deploy.value if row.on_deploy else entry["on_deploy"]
        running = Running(row.id, row.queue, row.name, row.owner, on_deploy)
        self._master.attempts.hold(running, worker)
        claim = Claim(row.id, owner, worker.revision.name, time.time())

        def claimed(outcome: Applied | StoreError) -> None:
            self._claimed(message, running, worker, outcome)
            self._master.deploy.on_fork_answered()

        self._master.write(claim, claimed)

    def _claimed(
        self,
        message: dict[str, Any],
        running: Running,
        worker: Worker,
        outcome: Applied | StoreError,
    ) -> None:
        if isinstance(outcome, Applied) and outcome.result is not None:
            running.attempt = outcome.result
            self._start(message, running, worker)
            return
        self._unclaim(message, running, worker)
        if isinstance(outcome, StoreError):
            self._master.loop.after(1.0, self.kick)

    def _unclaim(self, message: dict[str, Any], running: Running, worker: Worker) -> None:
        if "load" in message:
            with contextlib.suppress(OSError):  # the next start removes it
                os.unlink(message["load"])
        self._master.attempts.release(running)
        if worker.state is WorkerState.CLAIMED:
            worker.take(WorkerEvent.UNCLAIM)

    def _start(self, message: dict[str, Any], running: Running, worker: Worker) -> None:
        """The claim is committed: send the task, unless its worker died meanwhile."""
        if worker.state is not WorkerState.CLAIMED:
            facts = Facts("unbegun", False, reason="its worker was gone before it began")
            drop = lambda _: self._master.salvage.drop_slot(worker)  # noqa: E731
            self._master.attempts.settle(running, facts, drop)
            return
        worker.take(WorkerEvent.SENT)
        now = {"attempt": running.attempt, "at": time.time()}
        self._master.workers.tell(worker, message | now)
        self._master.attempts.on_sent(running, worker)
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
        places = self._master.places
        message: dict[str, Any] = {
            "type": "run",
            "task": row.id,
            "name": row.name,
            "version": row.version if row.saved_version is None else row.saved_version,
            "log": places.task_log(row.id),
            "log_limit": self._master.config.logs.max_size,
            "scratch": places.task_scratch(row.id),
        }
        if row.saved_version is not None:
            memory.return_large()
        args, saved = self._master.reader.args(row.id), self._master.reader.saved(row.id)
        if len(args) + len(saved or b"") <= INLINE:
            return message | {"args": args, "saved": saved}
        path = os.path.join(places.slots, f"{worker.id.hex()}.load")
        with open(files.open_own(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
            self._handed += file.write(cbor2.dumps({"args": args, "saved": saved}))
        return message | {"args": b"", "saved": None, "load": path}

    # ── due times ────────────────────────────────────────────────────────────────────────────

    def on_scheduled(self, run_at: float | None) -> None:
        """A task was scheduled for ``run_at`` (Unix seconds): make sure to wake up then."""
        if run_at is not None:
            self.wake_due()

    def _wake_due(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if not self._master.is_serving:
            return
        next_due = self._master.reader.next_due()
        if next_due is None:
            return
        now = time.time()
        if next_due > now:
            self._due = self._master.loop.after(min(next_due - now, LONGEST_WAIT), self.wake_due)
            return

        def woken(outcome: Applied | StoreError) -> None:
            if isinstance(outcome, StoreError):
                self._due = self._master.loop.after(1.0, self.wake_due)
                return
            self.kick()
            self.wake_due()

        self._master.write(Wake(now, BATCH), woken)

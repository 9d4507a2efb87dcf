"""Dispatch: which waiting task goes to which worker, and when to look again.

Level-triggered: ``kick`` says that something changed; each look starts from the store and the
workers as they are now, and is repeated while the store cannot be read. The store lists a few ready
tasks of each queue that has places, of the kinds that a live revision can run; that says which
workers are wanted. Idle workers are offered to the store, which gives each a task and commits that
(``Take``); only then is the task sent. A task needs a place in its queue, and one below the ceiling
for all ([app] max_workers).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from itertools import chain

import cbor2

from taskd import log
from taskd.config import Config
from taskd.errors import StoreError
from taskd.master.attempts.attempts import Attempts, Offered
from taskd.master.attempts.concurrency import Concurrency
from taskd.master.attempts.limits import Limits
from taskd.master.attempts.rechecking import Rechecking
from taskd.master.attempts.sending import Sending, unclaim
from taskd.master.fleet import (
    Groups,
    Revision,
    Revisions,
    Worker,
    Workers,
    drop_slot,
)
from taskd.master.loop import (
    PASSING,
    UNWRITABLE,
    Done,
    Life,
    Look,
    Loop,
    Notice,
    Storage,
    Timer,
)
from taskd.model.routing import Held, route
from taskd.model.worker import WorkerState
from taskd.paths import Places
from taskd.store.api import (
    Applied,
    CancelExpired,
    GoOn,
    HoldKind,
    Offer,
    Take,
    Wake,
)
from taskd.store.limit_api import Block
from taskd.store.queries import NextDue, Ready, ReadyTasks
from taskd.store.values import Kind

NOT_STARTED = "no waiting task is started"
NOT_QUEUED = "no scheduled task is queued"

BATCH = 64
"""Ready tasks listed, taken or held at a time."""

HANDED_AT_ONCE = 4 << 20
"""Bytes of arguments and saved state that the store answers at once."""

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
        sending: Sending,
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
        self._sending = sending
        self.concurrency = Concurrency(loop, config, storage)
        self.limits = Limits(loop, storage, revisions)
        self._due: Timer | None = None
        self._last = ""  # the queue that had its turn last
        self._has_passed_over = False
        self._is_crowded = False  # the last look found no place for a task
        self._busy: set[str] = set()  # the queues in which the last workers offered found tasks
        self._holding: set[tuple[str, Kind]] = set()
        self._is_asking = False  # which tasks are ready …
        self._is_due = False  # … and another look was wanted meanwhile
        self.claimed: Notice[[]] = Notice()
        self.kick = Look(loop, "waiting tasks are not looked for", self._look).ask
        self.wake_due = Look(loop, "due times are not looked at", self._wake_due).ask
        self.limits.changed.to(self.wake_due, self.kick)

    def _look(self) -> None:
        if not self._life.may_dispatch:
            return
        if self._storage.damage is not None:
            self._loop.troubles.tell(UNWRITABLE, self._storage.damage)
            return
        if self._is_asking:
            self._is_due = True
            return
        occupied, most = self._attempts.occupied, self._config.max_workers
        queues = {*occupied, *self.concurrency.named()}
        wanted = Ready(
            after=self._last,
            places={queue: self.concurrency.of(queue) - occupied[queue] for queue in queues},
            places_elsewhere=self.concurrency.elsewhere,
            routes=self._attempts.routes(),
            alone=self._attempts.alone(),
            limit=min(most - len(self._attempts), BATCH + len(self._attempts.offered)),
        )
        self._is_asking, self._is_due = True, False
        try:
            self._storage.gather(wanted, lambda parts: self._on_ready(wanted, parts))
        except BaseException:
            self._is_asking = False
            raise

    def _on_ready(self, wanted: Ready, parts: list[ReadyTasks] | StoreError) -> None:
        """Offer idle workers to the store for the tasks that were found; ask for the workers that
        are missing. For each worker that is offered just now one task is passed over: the first
        ones, which it will have. They may have been taken already, so that others are passed over:
        the answer to the offer leads to another look."""
        self._is_asking = False
        if isinstance(parts, StoreError):
            self._loop.troubles.tell(NOT_STARTED, parts)
            self._loop.again(self.kick)
            return
        self._loop.troubles.over(NOT_STARTED)
        if self._is_due:
            self.kick()
        if not self._life.may_dispatch:
            return
        live = {revision.number: revision for revision in self._revisions.live()}
        offered = Counter(self._attempts.offered.values())
        missing: Counter[Revision] = Counter()
        offers: dict[str, list[Worker]] = {}
        left = self._config.max_workers - len(self._attempts) - offered.total()
        # As many as now, not as when it was asked.
        taken = self._attempts.occupied + Counter(place.queue for place in offered.elements())
        for queue, candidate in chain.from_iterable(part.tasks for part in parts):
            place = Offered(queue, candidate.runner)
            revision = live.get(candidate.runner)
            if offered[place] > 0:
                offered[place] -= 1
                self._has_passed_over = True
            elif revision is not None and min(left, self.concurrency.of(queue) - taken[queue]) > 0:
                left -= 1
                taken[queue] += 1
                self._last = queue
                worker = self._workers.take_idle(revision, self._config.limits_of(queue))
                if worker is None:
                    missing[revision] += 1
                else:
                    offers.setdefault(queue, []).append(worker)
        self._is_crowded = left <= 0
        for queue, workers in offers.items():
            self._take(queue, workers, wanted)
        for queue, kind in chain.from_iterable(part.unroutable for part in parts):
            self._hold(queue, kind)
        blocked = tuple(chain.from_iterable(part.blocked for part in parts))
        if blocked:
            self._storage.write(Block(blocked), self._on_blocked)
        for revision in live.values():
            self._workers.want(revision, missing[revision])

    def _on_blocked(self, outcome: Applied | StoreError) -> None:
        """What cannot begin for a limit is out of the way: others are behind it."""
        if isinstance(outcome, StoreError):
            self._loop.again(self.kick)
        elif outcome.result:
            self.on_waiting(False)

    def why_full(self, queue: str) -> str | None:
        """Why no task of ``queue`` can be started before one that runs has ended; None: one can."""
        places, most = self.concurrency.of(queue), self._config.max_workers
        if self._attempts.occupied[queue] >= places:
            return (
                f"waits for a place in queue '{queue}': tasks run in all of its places ({places})"
            )
        if len(self._attempts) >= most:
            return f"waits for a place: as many tasks run as may at once ({most})"
        return None

    # ── taking ───────────────────────────────────────────────────────────────────────────────

    def _take(self, queue: str, workers: list[Worker], wanted: Ready) -> None:
        """Have the store give each idle worker a ready task."""
        take = self._offer(queue, workers, wanted.routes, wanted.alone.get(queue, {}))
        if take is not None:
            self._storage.write(*take)

    def take_beside(self, worker: Worker) -> tuple[Take, Done] | None:
        """What gives the worker another task of its queue in the transaction that ends the one it
        has: if the last ones that were offered there found one, and no other queue waits for a
        place."""
        running, current = worker.running, self._revisions.current
        if running is None or worker.revision is not current or not self._life.may_dispatch:
            return None
        queue, most = running.queue, self._config.max_workers
        offered = [place.queue for place in self._attempts.offered.values()]
        is_full = self._attempts.occupied[queue] + offered.count(queue) > (
            self.concurrency.of(queue)
        )
        if (
            is_full
            or self._is_crowded
            or queue not in self._busy
            or len(self._attempts) + len(offered) > most
            or worker.served + 1 >= self._config.app.tasks_per_worker
            or self._storage.damage is not None
        ):
            return None
        alone = self._attempts.alone().get(queue, {})
        return self._offer(queue, [worker], self._attempts.routes(), alone)

    def _offer(
        self,
        queue: str,
        workers: list[Worker],
        routes: Mapping[Kind, int],
        alone: Mapping[int, int],
    ) -> tuple[Take, Done] | None:
        """After a transient error before that a worker is idle again; None: no worker is left."""
        offered: dict[bytes, Worker] = {}
        offers = []
        for worker in workers:
            try:
                identity = cbor2.dumps([worker.id, *worker.identity])  # may read /proc
                self._groups.limit(worker, self._config.limits_of(queue))
            except PASSING as error:
                unclaim(worker)
                self._loop.troubles.tell("a task cannot be handed to its worker", error)
                self._loop.again(self.kick)
                continue
            offered[identity] = worker
            offers.append(Offer(identity, worker.revision.number, worker.revision.name))
            self._attempts.offered[worker.id] = Offered(queue, worker.revision.number)
        if not offers:
            return None

        def taken(outcome: Applied | StoreError) -> None:
            for worker in offered.values():
                del self._attempts.offered[worker.id]
            if isinstance(outcome, StoreError):
                self._loop.again(self.kick)
            else:
                for each in outcome.result:
                    self._sending.begin(each, offered.pop(each.worker))
                is_short = bool(outcome.result) and bool(offered)  # what was taken fills the room
                if self._has_passed_over or is_short:
                    self._has_passed_over = False
                    self.kick()
                if offered and not is_short:
                    self._busy.discard(queue)
                else:
                    self._busy.add(queue)
            for worker in offered.values():
                unclaim(worker)
                if worker.state is WorkerState.DEAD:
                    # After an error its slot may have an end that is not recorded yet.
                    if not isinstance(outcome, StoreError):
                        drop_slot(self._places.slots, worker)
                    self._workers.buried()  # its revision may go only now
            if self.limits.has_rates:
                self.wake_due()
            self.claimed()

        return Take(queue, routes, alone, tuple(offers), HANDED_AT_ONCE, time.time()), taken

    # ── what no live revision can run ────────────────────────────────────────────────────────

    def _hold(self, queue: str, kind: Kind) -> None:
        """Hold all ready tasks of that kind, some at a time."""
        reason = route(self._revisions.live(), *kind)
        if (queue, kind) in self._holding or not isinstance(reason, Held):
            return
        self._holding.add((queue, kind))

        def held(outcome: Applied | StoreError) -> None:
            self._holding.discard((queue, kind))
            if isinstance(outcome, StoreError):
                self._loop.again(self.kick)
                return
            for task in outcome.result:
                log.warning("held", task=task, reason=reason.reason)
            if outcome.result:
                self.kick()

        self._storage.write(HoldKind(queue, kind, reason.reason, BATCH, time.time()), held)

    # ── due times, and tasks that wait for others ────────────────────────────────────────────

    def begin(self) -> None:
        """The master serves: its limits are in force before it starts a task."""
        self.limits.begin()
        self.concurrency.look()
        self.on_waiting(True)
        Rechecking(self._loop, self._storage, self.wake_due).begin()

    def on_waiting(self, has_due_time: bool) -> None:
        """A task is scheduled, or queued (and may expire), or has ended."""
        if has_due_time or self.limits.has_rates:
            self.wake_due()
        self.kick()

    def on_applied(self, outcome: Applied) -> None:
        """An operation is committed."""
        for task in outcome.asked:
            self._attempts.ask(task, "cancel", "its parent was cancelled")
        if outcome.also:  # tasks that waited for others: they are ready, or more are to be told
            self.on_waiting(True)

    def _wake_due(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if self._life.is_up:
            self._storage.ask(NextDue(), self._on_due_in)

    def _on_due_in(self, due_in: float | StoreError | None) -> None:
        if isinstance(due_in, StoreError):
            self._loop.troubles.tell(NOT_QUEUED, due_in)
            self._loop.again(self.wake_due)
            return
        self._loop.troubles.over(NOT_QUEUED)
        if due_in is None or not self._life.is_up:
            return
        if due_in > 0:
            wait = min(due_in, LONGEST_WAIT)
            # Of two answers that are on their way, the later to come may be the earlier asked for.
            if self._due is None or self._due.when > time.monotonic() + wait:
                if self._due is not None:
                    self._due.cancel()
                self._due = self._loop.after(wait, self.wake_due)
            return

        def woken(outcome: Applied | StoreError) -> None:
            if isinstance(outcome, StoreError):
                self._loop.again(self.wake_due)
                return
            self.kick()
            self.wake_due()

        self._storage.write_together(
            [(CancelExpired(BATCH), _expired), (GoOn(BATCH), _told), (Wake(BATCH), woken)]
        )


def _told(_: Applied | StoreError) -> None:
    """The next one is answered as well."""


def _expired(outcome: Applied | StoreError) -> None:
    for task in outcome.result if isinstance(outcome, Applied) else ():
        log.info("expired", task=task)

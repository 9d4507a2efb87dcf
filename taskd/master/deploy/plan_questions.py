"""The plan of a deploy: for all that waits or runs, can the new revision go on with it?

A worker of the new revision (its probe worker) answers for copies of the real arguments and saved
states: one item for each distinct (task, version, argument shape) that waits, one for each running
task. The cost grows with those, never with the backlog. Nothing is changed.

It is asked in pieces, the next one once it has answered for the last: no more than one large state
is in the master's memory at a time, clients are served between two, and what is limited is the time
without an answer. What running tasks have saved it reads from their slots itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import cbor2

from taskd.errors import DeployRefused
from taskd.master.attempts import Attempts
from taskd.master.deploy import accepted
from taskd.master.deploy.guard import Guard
from taskd.master.fleet import Probe, Revision, Revisions, Running, Worker, Workers
from taskd.master.loop import Deadline, Loop, Storage
from taskd.model.plan import Item, Plan, judge
from taskd.model.task import SETTLED, State
from taskd.model.worker import WorkerEvent
from taskd.paths import Places
from taskd.posix import files, memory
from taskd.record import Record
from taskd.revision import confirmed
from taskd.slot import layout
from taskd.store.api import Filter

PLAN_WITHIN = 60.0
"""Seconds of its own time that the new revision's worker has to come up, and then to answer for
each piece …"""

SLOWEST = 1 << 20
"""… and one more for each so many bytes of arguments and saved state in it."""

PIECE = 1 << 20
"""Bytes of arguments and saved state after which a piece is full …"""

PIECE_ITEMS = 200
"""… and items."""

_SECTOR = 512  # the unit of st_blocks, stat(2)

Done = Callable[["Plan | DeployRefused"], None]


class Question(Record):
    """One item as it is asked; ``weight``: bytes that must be read to answer it."""

    ref: int
    args: bytes
    saved: bytes | None
    slot: str | None
    attempt: int
    weight: int


class Sources(Record):
    """What a plan looks at."""

    loop: Loop
    places: Places
    storage: Storage
    revisions: Revisions
    workers: Workers
    attempts: Attempts


class Planning:
    """One plan under way; ``done`` is called exactly once, unless ``stop`` comes before."""

    def __init__(self, sources: Sources, target: Revision, guard: Guard, done: Done) -> None:
        self._look = sources
        self._target = target
        self._done: Done | None = done
        self._items: list[Item] = []
        self._examples: list[int] = []  # the task that stands for each item
        self._asked = 0  # of the items
        self._answered = 0
        self._refused: dict[int, str] = {}
        self._worker: Worker | None = None
        self._deadline = self._within(PLAN_WITHIN)
        around = guard.around
        probe = Probe(around(self._on_idle), around(self._on_answer), around(self._died))
        sources.workers.probe(target, probe)

    @property
    def waits_for(self) -> str:
        """What is not done yet, in words."""
        if self._worker is None:
            return "the first worker of the release"
        return f"the answers for {len(self._items) - self._answered} of {len(self._items)} items"

    def stop(self) -> None:
        """Its outcome is of no use any more."""
        self._done = None
        self._deadline.cancel()
        self._look.workers.probes.clear()

    def _finish(self, outcome: Plan | DeployRefused) -> None:
        done = self._done
        self.stop()
        if done is not None:
            done(outcome)

    def _refuse(self, why: str) -> None:
        self._finish(DeployRefused(f"{self._target.name}: {why}"))

    def _within(self, seconds: float) -> Deadline:
        def pids() -> list[int]:
            workers = [worker.pid for worker in self._look.workers.of(self._target)]
            return [pid for pid in (self._target.zygote.pid, *workers) if pid]

        def overdue() -> None:
            if self._worker is None:
                self._refuse(f"its first worker is not up after {seconds:.0f} s")
                return
            self._refuse(
                f"its migrations or its probe are not done after {seconds:.0f} s "
                f"({self._answered} of {len(self._items)} questions are answered)"
            )

        return Deadline(self._look.loop, seconds, pids, overdue)

    def _died(self, how: str) -> None:
        when = "while it answered for the waiting tasks" if self._worker else "as it started"
        self._refuse(f"its probe worker died {when}: {how}")

    # ── what is asked about ──────────────────────────────────────────────────────────────────

    def _collect(self) -> None:
        """The items alone, without a byte of what users gave."""
        for group in self._look.storage.reader.groups():
            if group.waiting:
                name, version, shape, tasks, example = group
                self._items.append(Item(name, version, shape=shape, tasks=tasks, example=example))
                self._examples.append(example)
        for running in self._look.attempts.all():
            self._items.append(self._running_item(running))
            self._examples.append(running.task)

    def _running_item(self, running: Running) -> Item:
        worker = self._look.attempts.worker_of(running.task)
        row = self._look.storage.reader.task(running.task)
        assert row is not None, f"task {running.task} runs and is not in the store"
        return Item(
            name=running.name,
            version=row.version if row.saved_version is None else row.saved_version,
            task=running.task,
            revision=worker.revision.name if worker is not None else row.revision,
            stays=worker is not None and worker.revision is self._target,
            on_deploy=running.on_deploy,
            interruptions=row.budgets.interruptions,
        )

    def _question(self, ref: int) -> Question:
        """Raises StoreError."""
        task, reader = self._examples[ref], self._look.storage.reader
        args, saved = reader.args(task), reader.saved(task)
        self._items[ref] = self._items[ref]._replace(has_saved=saved is not None)
        weight = len(args) + len(saved or b"")
        slot, attempt = None, 0
        running, worker = self._look.attempts.get(task), self._look.attempts.worker_of(task)
        if running is not None and worker is not None and worker.slot_fd >= 0:
            slot, attempt = layout.file_name(worker.id), running.attempt
            weight += os.fstat(worker.slot_fd).st_blocks * _SECTOR
        return Question(ref, args, saved, slot, attempt, weight)

    # ── asking ───────────────────────────────────────────────────────────────────────────────

    def _on_idle(self, worker: Worker) -> None:
        """The probe worker is up, or has answered and can be asked again."""
        if self._worker is None:
            self._worker = worker
            memory.return_large()
            self._collect()
        piece: list[Question] = []
        weight = 0
        while self._asked < len(self._items) and weight < PIECE and len(piece) < PIECE_ITEMS:
            piece.append(question := self._question(self._asked))
            weight += question.weight
            self._asked += 1
        path = os.path.join(self._look.places.slots, layout.file_name(worker.id, layout.PLAN))
        try:
            self._write(path, piece)
        except OSError as error:
            self._finish(DeployRefused(f"cannot write {path}: {error.strerror}"))
            return
        self._deadline.cancel()
        self._deadline = self._within(PLAN_WITHIN + weight / SLOWEST)
        worker.take(WorkerEvent.PLAN)
        worker.tell({"type": "plan", "path": path})

    def _write(self, path: str, piece: list[Question]) -> None:
        probe = self._target.app.probe if self._is_all_asked else None
        items = [self._asked_as(question) for question in piece]
        with open(files.open_own(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
            file.write(cbor2.dumps({"probe": probe, "items": items}))

    def _asked_as(self, question: Question) -> dict[str, Any]:
        item = self._items[question.ref]
        return {
            "ref": question.ref,
            "name": item.name,
            "args": question.args,
            "saved": question.saved,
            "version": item.version,
            "slot": question.slot,
            "task": item.task,
            "attempt": question.attempt,
        }

    @property
    def _is_all_asked(self) -> bool:
        return self._asked == len(self._items)

    # ── the answer ───────────────────────────────────────────────────────────────────────────

    def _on_answer(self, message: dict[str, Any]) -> None:
        """To one piece."""
        if message["probe"] is not None:
            self._refuse(f"[app] probe = {self._target.app.probe!r} failed: {message['probe']}")
            return
        self._answered = self._asked
        self._refused |= dict(message["refused"])
        if self._is_all_asked:
            self._conclude()

    def _conclude(self) -> None:
        revisions, target = self._look.revisions, self._target
        current = revisions.current
        assert current is not None
        left_out = {ref for ref in self._refused if self._is_no_concern(self._items[ref])}
        mine = [ref for ref in range(len(self._items)) if ref not in left_out]
        items = [self._items[ref] for ref in mine]
        why = {new: self._refused[ref] for new, ref in enumerate(mine) if ref in self._refused}
        if why:
            found = confirmed.read(self._look.places.confirmed)
            before = frozenset(found.accepted if found is not None else ())
            items = accepted.marked(items, why, before, current, target, self._look.attempts)
        others = [(r.name, r.tasks) for r in revisions.live() if r is not target]
        tasks = current.tasks if current is not target else {}
        self._finish(judge(items, why, (target.name, target.tasks), others, tasks))

    def _is_no_concern(self, item: Item) -> bool:
        """Of what is refused: all that waits under this name is held already (it waits for an
        operator as it is: no deploy changes that), or the task has ended meanwhile."""
        reader = self._look.storage.reader
        if item.task is not None:
            row = reader.task(item.task)
            return row is not None and row.state in SETTLED
        ready = (State.QUEUED, State.SCHEDULED)
        wanted = [Filter(state=state, name=item.name, limit=1) for state in ready]
        return not any(reader.tasks(each) for each in wanted)

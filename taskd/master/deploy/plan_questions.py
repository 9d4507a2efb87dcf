"""The plan of a deploy: for all that waits or runs, can the new revision go on with it?

A worker of the new revision (its probe worker) answers for copies of the real arguments and saved
states: one item for each distinct (task, version, argument shape) that waits, one for each running
task. The cost grows with those, never with the backlog. Nothing is changed.

The master asks in pieces, the next one once the worker has answered for the last. So no more than
one large state is in the master's memory at a time, clients are served between two pieces, and the
deadline is for one piece. The worker itself reads what running tasks have saved, from their slots.

An item that the new revision refuses may be one that the current release could not go on with
either: it was accepted when that release was deployed (``--allow-held``). A later deploy makes
nothing worse for it, and is not refused for its sake.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection
from typing import Any, TypeVar

import cbor2

from taskd.errors import DeployRefused, StoreError
from taskd.master.attempts import Attempts, Limits, Pauses
from taskd.master.deploy.guard import Guard
from taskd.master.fleet import Probe, Revision, Revisions, Worker, Workers
from taskd.master.loop import Deadline, Loop, Storage
from taskd.master.schedules import Schedules
from taskd.model.binding import bind, names_in
from taskd.model.plan import Item, Plan, judge, narrowed
from taskd.model.task import SETTLED
from taskd.model.worker import WorkerEvent
from taskd.paths import Places
from taskd.posix import files, memory
from taskd.record import Record
from taskd.revision import confirmed
from taskd.slot import layout
from taskd.store.queries import Glance, Glances, Part, Startable, Stored, StoredData, WaitingGroups
from taskd.store.values import Group

PLAN_WITHIN = 60.0
"""Seconds of its own time that the probe worker has to start, and to answer for each piece …"""

SLOWEST = 1 << 20
"""… and one more for each so many bytes of arguments and saved state in it."""

PIECE = 1 << 20
"""Bytes of arguments and saved state after which a piece is full …"""

PIECE_ITEMS = 200
"""… and items."""

_SECTOR = 512  # the unit of st_blocks, stat(2)

A = TypeVar("A")

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
    pauses: Pauses
    schedules: Schedules
    limits: Limits


class Planning:
    """One plan under way; ``done`` is called exactly once, unless ``stop`` comes before."""

    def __init__(self, sources: Sources, target: Revision, guard: Guard, done: Done) -> None:
        self._look = sources
        self._guard = guard
        self._target = target
        self._done: Done | None = done
        self._items: list[Item] = []
        self._examples: list[int] = []  # the task that stands for each item
        self._asked = 0  # of the items
        self._answered = 0
        self._refused: dict[int, str] = {}
        self._mistyped: dict[int, str] = {}
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
        """End the plan; ``done`` is not called."""
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

    # ── the items ────────────────────────────────────────────────────────────────────────────

    def _collect(self, groups: list[Group] | StoreError) -> None:
        """Make the items, without reading arguments or saved states, and ask the first piece."""
        if self._done is None:
            return
        for name, version, shape, tasks, example in _given(groups):
            self._items.append(Item(name, version, shape=shape, tasks=tasks, example=example))
            self._examples.append(example)
        for running in self._look.attempts.all():
            worker = self._look.attempts.worker_of(running.task)
            row = running.row
            item = Item(
                name=running.name,
                version=row.version if row.saved_version is None else row.saved_version,
                task=running.task,
                revision=worker.revision.name if worker is not None else row.revision,
                stays=worker is not None and worker.revision is self._target,
                on_deploy=running.on_deploy,
                interruptions=row.budgets.interruptions,
            )
            self._items.append(item)
            self._examples.append(running.task)
        self._read_piece([])

    def _question(self, ref: int, stored: Stored) -> Question:
        task, args, saved = stored
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
        """The probe worker has started, or has answered: ask the next piece."""
        if self._worker is None:
            self._worker = worker
            memory.return_large()
            self._look.storage.gather(WaitingGroups(), self._guard.around(self._collect))
        elif self._asked < len(self._items):
            self._read_piece([])

    def _read_piece(self, piece: list[Question]) -> None:
        """Read what is to be asked next, until the piece is full."""
        if self._done is None:
            return
        end = self._asked + PIECE_ITEMS - len(piece)
        query = StoredData(tuple(self._examples[self._asked : end]))
        read = functools.partial(self._on_read, piece, self._asked + len(query.tasks))
        self._look.storage.ask(query, self._guard.around(read))

    def _on_read(self, piece: list[Question], end: int, part: Part[Stored] | StoreError) -> None:
        """``end``: behind the last item whose task was asked for."""
        if self._done is None:
            return
        found, rest = _given(part)
        for stored in found:
            self._pass_over(stored.task, end)
            piece.append(self._question(self._asked, stored))
            self._asked += 1
        if rest is None:
            self._pass_over(None, end)
        if rest is not None and sum(question.weight for question in piece) < PIECE:
            self._look.loop.soon(self._guard.around(lambda: self._read_piece(piece)))
        else:
            self._ask(piece)

    def _pass_over(self, task: int | None, end: int) -> None:
        """Go on to the item of ``task``: those before it are of tasks that an operator has removed
        since the plan began. One that ran has ended. Raises DeployRefused."""
        while self._asked < end and (gone := self._examples[self._asked]) != task:
            if self._items[self._asked].task is None:
                raise DeployRefused(
                    f"{self._target.name}: task {gone}, which the plan asks about, was removed "
                    "meanwhile: deploy again"
                )
            self._asked += 1

    def _ask(self, piece: list[Question]) -> None:
        worker = self._worker
        assert worker is not None
        path = os.path.join(self._look.places.slots, layout.file_name(worker.id, layout.PLAN))
        try:
            self._write(path, piece)
        except OSError as error:
            self._finish(DeployRefused(f"cannot write {path}: {error.strerror}"))
            return
        self._deadline.cancel()
        weight = sum(question.weight for question in piece)
        self._deadline = self._within(PLAN_WITHIN + weight / SLOWEST)
        worker.take(WorkerEvent.PLAN)
        worker.tell({"type": "plan", "path": path})

    def _write(self, path: str, piece: list[Question]) -> None:
        """The probe runs with the last piece. Raises OSError."""
        probe = self._target.app.probe if self._asked == len(self._items) else None
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

    # ── the answer ───────────────────────────────────────────────────────────────────────────

    def _on_answer(self, message: dict[str, Any]) -> None:
        """The answer to one piece. After the last one: judge the whole plan, once it is known which
        of the refused items still count."""
        if message["probe"] is not None:
            self._refuse(f"[app] probe = {self._target.app.probe!r} failed: {message['probe']}")
            return
        self._answered = self._asked
        self._refused |= dict(message["refused"])
        self._mistyped |= dict(message.get("mistyped") or ())  # a worker of 0.2 does not tell
        if self._asked < len(self._items):
            return
        refused = [self._items[ref] for ref in self._refused]
        running = tuple(item.task for item in refused if item.task is not None)
        self._look.storage.gather(Glances(running), self._guard.around(self._on_glances))

    def _on_glances(self, found: list[Glance] | StoreError) -> None:
        if self._done is None:
            return
        settled = {task.id for task in _given(found) if task.state in SETTLED}
        names = frozenset(self._items[ref].name for ref in self._refused)
        judge_it = functools.partial(self._judge, settled)
        self._look.storage.gather(Startable(names), self._guard.around(judge_it))

    def _judge(self, settled: set[int], startable: list[str] | StoreError) -> None:
        """A refused item does not count if the running task has ended meanwhile (``settled``), or
        if all tasks that wait under its name are held (it is not ``startable``), and wait for an
        operator with or without the deploy."""
        if self._done is None:
            return
        revisions, target = self._look.revisions, self._target
        current = revisions.current
        assert current is not None
        names = set(_given(startable))
        left_out = set()
        for ref in self._refused:
            item = self._items[ref]
            if item.task in settled or (item.task is None and item.name not in names):
                left_out.add(ref)
        mine = [ref for ref in range(len(self._items)) if ref not in left_out]
        items = [self._items[ref] for ref in mine]
        why = {new: self._refused[ref] for new, ref in enumerate(mine) if ref in self._refused}
        if why:
            found = confirmed.read(self._look.places.confirmed)
            before = frozenset(found.accepted if found is not None else ())
            for ref in why:
                is_accepted = self._was_accepted(items[ref], before, current)
                items[ref] = items[ref]._replace(accepted=is_accepted)
        others = [(r.name, r.tasks) for r in revisions.live() if r is not target]
        tasks = current.tasks if current is not target else {}
        plan = judge(items, why, (target.name, target.tasks), others, tasks)
        odd = [(self._items[ref], why) for ref, why in self._mistyped.items()]
        told = narrowed(odd, current.tasks, target.tasks)
        warnings = self._look.pauses.warnings() + plan.warnings + told
        if (refusal := self._look.limits.refusal(target)) is not None:
            self._refuse(refusal)
            return
        warnings = warnings + self._look.limits.warnings(target)
        schedules = self._look.schedules.planned(target)
        if schedules.refusal is not None:
            self._refuse(schedules.refusal)
            return
        plan = plan._replace(schedules=tuple(schedules.changes))
        warnings += schedules.doubts
        self._finish(plan._replace(warnings=warnings))

    def _was_accepted(self, item: Item, before: Collection[int], current: Revision) -> bool:
        """Whether a refused item was accepted with the current release. ``before``: the tasks that
        ``current`` was deployed in spite of."""
        if item.task is not None:
            worker = self._look.attempts.worker_of(item.task)
            if worker is not None and worker.revision is current:
                return False
            is_older = item.task in before or item.name not in current.tasks
            return self._target is current or is_older
        if self._target is current or (entry := current.tasks.get(item.name)) is None:
            return True
        if item.has_saved:
            return item.version not in entry["reads"] or item.example in before
        return item.shape is not None and bind(entry, names_in(item.shape)) is not None


def _given(answer: A | StoreError) -> A:
    """Raises the StoreError, which refuses the deploy."""
    if isinstance(answer, StoreError):
        raise answer
    return answer

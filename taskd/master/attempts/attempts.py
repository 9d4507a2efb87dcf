"""Attempts in motion: what they report, how they end, and that each end reaches the store once.

An attempt ends by its END record (the worker says where it stands in the slot) or by the death of
its worker (the slot is read to its last whole record). Both lead to one guarded write; only when
it is committed is the worker told ``noted``, or a dead worker's slot file removed.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from taskd import log
from taskd.errors import Error, ProtocolError, StoreError
from taskd.master.fleet.running import Running
from taskd.master.loop.trouble import PASSING, in_words
from taskd.model.endings import Facts, if_cancelled, judge
from taskd.model.routing import Held, route
from taskd.model.task import SETTLED, State
from taskd.model.worker import WorkerEvent, WorkerState
from taskd.protocol.records import ERROR_PARTS, PROGRESS_PARTS, check
from taskd.protocol.saved import Kind
from taskd.record import Record
from taskd.slot import reader as slot_reader
from taskd.store.api import Answer, Applied, Settle

if TYPE_CHECKING:
    from taskd.master.fleet.revision import Revision
    from taskd.master.fleet.worker import Worker
    from taskd.master.master import Master

STORE_RETRY = 1.0
"""Seconds until an end that could not be committed (a full disk) is tried again."""

UNRECORDED = "it has ended, and that cannot be recorded yet"


class _End(Record):
    """What is to be recorded of one attempt."""

    running: Running
    facts: Facts
    done: Callable[[str], None]
    result: bytes | None
    kept: bytes | None
    kept_version: int | None

    @property
    def size(self) -> int:
        return len(self.result or b"") + len(self.kept or b"")


class Attempts:
    """Owns every Running: by task, and counted by queue."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._by_task: dict[int, Running] = {}
        self._workers: dict[int, Worker] = {}
        self.occupied: Counter[str] = Counter()
        self._unfit: dict[int, set[int]] = {}
        self.unrecorded = 0  # ends that the store could not take, to be tried again by a timer

    # ── who runs what ────────────────────────────────────────────────────────────────────────

    def __contains__(self, task: int) -> bool:
        return task in self._by_task

    def get(self, task: int) -> Running | None:
        return self._by_task.get(task)

    def worker_of(self, task: int) -> Worker | None:
        return self._workers.get(task)

    @property
    def count(self) -> int:
        """How many places are taken, in all queues."""
        return len(self._by_task)

    def all(self) -> list[Running]:
        return list(self._by_task.values())

    def hold(self, running: Running, worker: Worker | None) -> None:
        """The task occupies a place in its queue from now on; ``worker`` None: an unknown one."""
        self._by_task[running.task] = running
        self.occupied[running.queue] += 1
        if worker is not None:
            self._workers[running.task] = worker
            worker.running = running
        self._master.standing.changed()

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
        self._master.standing.changed()

    def disown(self, task: int) -> None:
        """Its worker is dead: nobody can be told anything about it any more."""
        self._workers.pop(task, None)

    def takers(self, task: int) -> list[Revision]:
        """The live revisions, but for those that said they cannot take this task's state."""
        refused = self._unfit.get(task, set())
        return [r for r in self._master.revisions.live() if r.number not in refused]

    # ── asking ───────────────────────────────────────────────────────────────────────────────

    def ask(self, task: int, kind: str, why: str) -> None:
        """Ask a running task to "leave" or to be "cancel"-led at its next safe point.

        One whose claim is on its way is asked once it was sent: a worker forgets what it is asked
        of an attempt that it does not have.
        """
        running, worker = self._by_task.get(task), self._workers.get(task)
        if running is None or worker is None or running.asked == "cancel":
            return
        running.asked, running.why = kind, why
        if running.attempt:
            self._tell_wish(running, worker)
        if kind == "cancel":
            self.enforce(running, worker)

    def on_sent(self, running: Running, worker: Worker) -> None:
        """The worker has the task now: tell it what was asked while the claim was on its way."""
        self._master.salvage.oom.look()
        if running.asked is not None:
            self._tell_wish(running, worker)

    def _tell_wish(self, running: Running, worker: Worker) -> None:
        assert running.asked is not None
        self._master.workers.tell(
            worker,
            {
                "type": running.asked,
                "task": running.task,
                "attempt": running.attempt,
                "why": running.why,
            },
        )

    def enforce(self, running: Running, worker: Worker) -> None:
        """A cancelled task that does not leave within the grace is killed."""
        grace = self._master.config.daemon.cancel_grace

        def overdue() -> None:
            if worker.running is running and worker.state is WorkerState.RUNNING:
                self._master.workers.kill(worker, f"did not leave in {grace:g} s, and was killed")

        self._master.loop.after(grace, overdue)

    # ── reports ──────────────────────────────────────────────────────────────────────────────

    def on_report(self, worker: Worker, message: dict[str, Any]) -> None:
        """The latest progress, or that it waits for room on the disk."""
        running = worker.running
        if running is None or (message["task"], message["attempt"]) != _attempt(running):
            return
        if message["type"] == "waiting":
            running.waiting = message["message"] or None
            return
        running.progress = {part: message[part] for part in PROGRESS_PARTS}
        self._master.streams.on_progress(running)

    # ── ends ─────────────────────────────────────────────────────────────────────────────────

    def on_ended(self, worker: Worker, message: dict[str, Any]) -> None:
        """END stands in the worker's slot. Raises Later."""
        running = worker.running
        if running is None or (message["task"], message["attempt"]) != _attempt(running):
            self._note(worker, message["task"], message["attempt"], Answer.SUPERSEDED)
            return
        if worker.state is WorkerState.ENDING:
            return  # said again on a new connection; what is under way answers it
        self._master.intake.admit(worker.slot_fd)
        end, kept = _read_end(worker.slot_fd, message["offset"], running)
        worker.says(WorkerEvent.ENDED)

        def noted(answer: str) -> None:
            worker.served += 1
            self._note(worker, running.task, running.attempt, answer)

        self.end_by_record(running, worker, end, kept, noted)

    def _note(self, worker: Worker, task: int, attempt: int, answer: str) -> None:
        self._master.workers.tell(
            worker, {"type": "noted", "task": task, "attempt": attempt, "answer": answer}
        )

    def end_by_record(
        self,
        running: Running,
        worker: Worker | None,
        end: dict[str, Any],
        kept: bytes | None,
        done: Callable[[str], None],
    ) -> None:
        error = end.get("error")
        facts = Facts(
            outcome=end["outcome"],
            progressed=end["progressed"],
            asked=running.why if end["outcome"] == "left" else None,
            reason=end.get("reason"),
            wake=end.get("wake"),
            error=None if error is None else {part: error[part] for part in ERROR_PARTS},
        )
        version = end.get("version") if kept is not None else None

        def settle() -> None:
            found = facts
            if end.get("unfit") and worker is not None and self._has_another_taker(running, worker):
                found = facts._replace(outcome="unfit")
            self.settle(running, found, done, end.get("result"), kept, version)

        self._insist(running, settle)

    def _has_another_taker(self, running: Running, worker: Worker) -> bool:
        """Its revision cannot take the state after all: is there a live one that can?"""
        self._unfit.setdefault(running.task, set()).add(worker.revision.number)
        row = self._master.reader.task(running.task)
        assert row is not None
        live = [(r, r.name, r.tasks) for r in self.takers(running.task)]
        return not isinstance(route(live, running.name, row.saved_version), Held)

    # ── the one write ────────────────────────────────────────────────────────────────────────

    def settle(
        self,
        running: Running,
        facts: Facts,
        done: Callable[[str], None],
        result: bytes | None = None,
        kept: bytes | None = None,
        kept_version: int | None = None,
    ) -> None:
        """Commit the end of an attempt; then free its place and call ``done`` with the answer.

        Raises nothing for want of something that passes: until the store has the end, it stays in
        the slot, and is tried again.
        """

        end = _End(running, facts, done, result, kept, kept_version)
        self._master.intake.hold(end.size)
        self._insist(running, lambda: self._settle(end))

    def _settle(self, end: _End) -> None:
        """Raises StoreError. What is called again must not hold itself: only the collector of
        cycles, which comes late, would free the state that it holds."""
        self._commit(self._operation(end), end)

    def _operation(self, end: _End) -> Settle:
        """Judged anew by each try. Raises StoreError."""
        running, facts = end.running, end.facts
        row = self._master.reader.task(running.task)
        assert row is not None, f"task {running.task} is running and not in the store"
        now = time.time()
        verdict = judge(facts, row.budgets, row.retries_allowed, now)
        succeeded = verdict.state is State.SUCCEEDED
        return Settle(
            task=running.task,
            attempt=running.attempt,
            state=verdict.state,
            at=now,
            budgets=verdict.budgets,
            reason=verdict.reason,
            result=end.result,
            error=verdict.error,
            saved=b"" if succeeded else end.kept,
            saved_version=None if succeeded else end.kept_version,
            run_at=verdict.run_at,
            progress=running.progress,
            if_cancelled=if_cancelled(facts, running.why if running.asked == "cancel" else None),
        )

    def _commit(self, operation: Settle, end: _End) -> None:
        running = end.running

        def committed(outcome: Applied | StoreError) -> None:
            if isinstance(outcome, StoreError):
                self.try_later(running, lambda: self._settle(end), outcome)
                return
            counted = outcome.end or operation
            if outcome.result == Answer.RECORDED:
                reason = {"reason": counted.reason} if counted.reason else {}
                state = counted.state.value
                log.info(state, task=running.task, attempt=running.attempt, **reason)
            self.release(running)
            self._master.intake.release(end.size)
            self._master.tasklogs.on_end(running.task)
            if counted.state in SETTLED:
                self._unfit.pop(running.task, None)
            end.done(outcome.result)
            self._master.dispatch.on_scheduled(counted.run_at)
            self._master.dispatch.kick()

        self._master.write(operation, committed)

    def _insist(self, running: Running, action: Callable[[], None]) -> None:
        """Now, or as soon as the store can be read."""
        try:
            action()
        except PASSING as error:
            self.try_later(running, action, error)

    def try_later(self, running: Running, action: Callable[[], None], error: BaseException) -> None:
        """The attempt is over, and that is not recorded: the task shows it, and ``action``, which
        may raise what passes, is called again after a while."""
        running.waiting = f"{UNRECORDED}: {in_words(error)}"
        self._master.loop.troubles.tell(UNRECORDED, error)
        self.unrecorded += 1
        self._master.intake.look()

        def again() -> None:
            self.unrecorded -= 1
            self._insist(running, action)

        self._master.loop.after(STORE_RETRY, again)


def _read_end(slot_fd: int, offset: int, running: Running) -> tuple[dict[str, Any], bytes | None]:
    """The END that stands there, and the full state it points to, if any.

    Raises ProtocolError if it is not that attempt's: its worker is heard no more, and exits; then
    all of its slot decides.
    """
    try:
        header = slot_reader.read_header(slot_fd)
        record = slot_reader.read_record(slot_fd, offset, header)
        end, kept = record.fields, None
        if record.kind != Kind.END or (end["task"], end["attempt"]) != _attempt(running):
            raise ProtocolError("what stands there is not the end of that attempt")
        check(Kind.END, end)
        if end.get("snapshot") is not None:
            whole = slot_reader.read_record(slot_fd, end["snapshot"], header).fields
            check(Kind.SNAPSHOT, whole)
            kept = whole["saved"]
    except (Error, OSError, KeyError, TypeError, OverflowError) as error:
        log.error("an end cannot be read", task=running.task, why=str(error))
        raise ProtocolError(f"the end of task {running.task} cannot be read: {error}") from error
    return end, kept


def _attempt(running: Running) -> tuple[int, int]:
    return running.task, running.attempt

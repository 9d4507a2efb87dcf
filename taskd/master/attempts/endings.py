"""How attempts end, and that each end reaches the store once.

An attempt ends by its END record (the worker says where it stands in the slot) or by the death of
its worker (``recovery`` reads the slot to its last whole record). Both make an ``Ending``, which
goes through the same steps:

    held      its bytes count as under way (``fleet.intake``)
    judged    what becomes of the task, by its row as claimed; again with each try
    written   one guarded write; an error of the store leads back to ``judged`` after a while
    over      the place is free; only now is the worker told ``noted``, or a dead worker's slot
              file removed (``then``)
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from taskd import log
from taskd.errors import Error, ProtocolError, StoreError
from taskd.master.attempts.attempts import Attempts
from taskd.master.attempts.tasklogs import TaskLogs
from taskd.master.fleet import Intake, Known, Running, Worker
from taskd.master.loop import PASSING, Done, Loop, Notice, Storage, in_words
from taskd.model import retrying
from taskd.model.endings import (
    Facts,
    Verdict,
    heeding_the_timeout,
    how,
    if_cancelled,
    judge,
)
from taskd.model.routing import Held, route
from taskd.model.task import ENDED, SETTLED, State
from taskd.model.worker import WorkerEvent, WorkerState
from taskd.protocol.records import ERROR_PARTS, check
from taskd.protocol.saved import Kind
from taskd.record import Record
from taskd.slot import reader as slot_reader
from taskd.store.api import (
    Answer,
    Applied,
    Operation,
    Settle,
    Take,
)

RAN_TOO_LONG = "ran for longer than its timeout"

UNRECORDED = "it has ended, and that cannot be recorded yet"


class Ending(Record):
    """One attempt's end: its facts, and what of it is kept. ``then``: called with the store's
    answer once it is recorded. ``ran``: seconds that it ran; None: since it began. ``worker``: the
    one that said so, if it lives; ``is_unfit``: its revision cannot take the state after all;
    ``takes_another``: it is free once it is noted."""

    running: Running
    facts: Facts
    then: Callable[[str], None] = lambda _: None
    kept: bytes | None = None
    kept_version: int | None = None
    result: bytes | None = None
    ran: float | None = None
    worker: Worker | None = None
    is_unfit: bool = False
    takes_another: bool = False

    @property
    def size(self) -> int:
        """Bytes that are committed with the end."""
        return len(self.result or b"") + len(self.kept or b"")


def by_record(
    running: Running, end: dict[str, Any], kept: bytes | None, then: Callable[[str], None]
) -> Ending:
    """The end that an END record tells; ``kept``: the full state that it points to, if any."""
    outcome = end["outcome"]
    if outcome == "cancelled" and "ran" not in end and running.timed_out is not None:
        outcome = "left"  # a worker of 0.2 was asked so, since it knows no timeouts
    error, retry = end.get("error"), end.get("retry")
    facts = Facts(
        outcome=outcome,
        progressed=end["progressed"],
        asked=running.why if outcome == "left" else None,
        reason=end.get("reason"),
        wake=end.get("wake"),
        error=None if error is None else {part: error[part] for part in ERROR_PARTS},
        failure=None if retry is None else retrying.failure(retry),
    )
    version = None if kept is None else end.get("version")
    return Ending(running, facts, then, kept, version, end.get("result"), end.get("ran"))


class Endings:
    """Owns the ends on their way. ``beside``: what is written together with the end of a worker's
    task, so that it has another at once. ``ended`` is told of each that is over, and whether the
    task is scheduled now."""

    def __init__(
        self, loop: Loop, storage: Storage, intake: Intake, attempts: Attempts, tasklogs: TaskLogs
    ) -> None:
        self._loop = loop
        self._storage = storage
        self._intake = intake
        self._attempts = attempts
        self._tasklogs = tasklogs
        self.beside: Callable[[Worker], tuple[Take, Done] | None] = lambda _: None
        self.ended: Notice[[bool]] = Notice()

    def on_ended(self, worker: Worker, message: dict[str, Any]) -> None:
        """END stands in the worker's slot. Raises ProtocolError, Later."""
        running, task, attempt = worker.running, message["task"], message["attempt"]
        if running is None or not running.is_attempt(task, attempt):
            _note(worker, task, attempt, Answer.SUPERSEDED)
            return
        if worker.state is WorkerState.ENDING:
            return  # said again on a new connection; what is under way answers it
        self._intake.admit(worker.slot_fd)
        end, kept = _read_end(worker.slot_fd, message["offset"], running)
        worker.says(WorkerEvent.ENDED)

        def noted(answer: str) -> None:
            worker.served += 1
            _note(worker, task, attempt, answer)

        ending = by_record(running, end, kept, noted)._replace(
            worker=worker,
            is_unfit=bool(end.get("unfit")),
            takes_another=message.get("next") is True,
        )
        self.settle(ending)

    def settle(self, ending: Ending) -> None:
        """Commit the end of an attempt; then free its place. Raises nothing for a transient error:
        until the store has the end, it stays in the slot, and is tried again."""
        self._intake.bytes += ending.size
        if ending.ran is None:
            begun = ending.running.begun
            has_run = begun is not None and ending.facts.outcome != "unbegun"
            ending = ending._replace(ran=time.monotonic() - begun if has_run and begun else 0.0)
        self._try(ending)

    def _try(self, ending: Ending) -> None:
        operation = self._judge(ending)
        works: list[tuple[Operation, Done]] = [
            (operation, partial(self._written, ending, operation))
        ]
        worker = ending.worker if ending.takes_another else None
        if worker is not None and (more := self.beside(worker)) is not None:
            works.append(more)
        self._storage.write_together(works)

    def _judge(self, ending: Ending) -> Settle:
        running, facts = ending.running, ending.facts
        row = running.row
        if ending.is_unfit and ending.worker is not None:
            self._attempts.refuse(running, ending.worker.revision)
            takers = self._attempts.takers(running.task)
            if not isinstance(route(takers, running.name, row.saved_version), Held):
                facts = facts._replace(outcome="unfit")
        facts = heeding_the_timeout(self._timed(running, facts))
        now = time.time()
        allowed = retrying.allowed(row.retries_said, facts.failure, row.retries_allowed)
        drawn = int.from_bytes(os.urandom(6)) / (1 << 48)
        verdict = judge(facts, row.budgets, allowed, now, drawn)
        succeeded = verdict.state is State.SUCCEEDED
        return Settle(
            task=running.task,
            attempt=running.attempt,
            state=verdict.state,
            at=now,
            budgets=verdict.budgets,
            reason=verdict.reason,
            result=ending.result,
            error=verdict.error,
            saved=b"" if succeeded else ending.kept,
            saved_version=None if succeeded else ending.kept_version,
            delay=verdict.delay,
            moves=verdict.moves,
            used=_used(verdict, row, ending.ran or 0.0),
            progress=running.progress,
            if_cancelled=if_cancelled(facts, running.why if running.asked == "cancel" else None),
            how=how(facts, verdict).value,
            passing=facts.error if verdict.error is None else None,
        )

    def _timed(self, running: Running, facts: Facts) -> Facts:
        """With what there is to say of its timeout, unless it was cancelled first."""
        why = running.timed_out or (RAN_TOO_LONG if running.row.timed_out else None)
        if why is None or running.asked == "cancel":
            return facts
        entry = self._attempts.entry_of(running) or {}
        return facts._replace(
            timed_out=why, if_timed_out=retrying.after_timeout(entry.get("retry"))
        )

    def _written(self, ending: Ending, operation: Settle, outcome: Applied | StoreError) -> None:
        running = ending.running
        if isinstance(outcome, StoreError):
            self.try_later(running, lambda: self._try(ending), outcome)
            return
        counted = outcome.end or operation
        if outcome.result == Answer.RECORDED:
            reason = {"reason": counted.reason} if counted.reason else {}
            log.info(counted.state.value, task=running.task, attempt=running.attempt, **reason)
        self._attempts.release(running)
        self._intake.release(ending.size)
        self._tasklogs.cut(running.task)
        if counted.state in SETTLED:
            self._attempts.forget(running.task)
        ending.then(outcome.result)
        self.ended(counted.state is State.SCHEDULED)

    def try_later(self, running: Running, action: Callable[[], None], error: BaseException) -> None:
        """The attempt is over, and that is not recorded: the task shows it, and ``action``, which
        may raise a transient error, is called again after a while.

        What is called again must not hold itself: only the collector of cycles, which comes late,
        would free the state that it holds.
        """
        running.waiting = f"{UNRECORDED}: {in_words(error)}"
        self._loop.troubles.tell(UNRECORDED, error)
        self._intake.unrecorded += 1
        self._intake.look()

        def again() -> None:
            self._intake.unrecorded -= 1
            try:
                action()
            except PASSING as error:
                self.try_later(running, action, error)

        self._loop.again(again)


def _used(verdict: Verdict, row: Known, ran: float) -> float | None:
    """Seconds that the try has run; None: it is over."""
    if verdict.state in ENDED or verdict.budgets.retries > row.budgets.retries:
        return None
    return (row.used or 0.0) + ran


def _note(worker: Worker, task: int, attempt: int, answer: str) -> None:
    worker.tell({"type": "noted", "task": task, "attempt": attempt, "answer": answer})


def _read_end(slot_fd: int, offset: int, running: Running) -> tuple[dict[str, Any], bytes | None]:
    """The END that stands there, and the full state it points to, if any.

    Raises ProtocolError if it is not that attempt's: its worker is heard no more, and exits; then
    all of its slot decides.
    """
    try:
        header = slot_reader.read_header(slot_fd)
        record = slot_reader.read_record(slot_fd, offset, header)
        end, kept = record.fields, None
        if record.kind != Kind.END or not running.is_attempt(end["task"], end["attempt"]):
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

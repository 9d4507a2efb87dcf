"""Timeouts: how long one try of a task may run, over all of its attempts.

The clock is CLOCK_MONOTONIC, which a new master reads as the one before it did. What earlier
attempts of the try have used stands in the task's row; when the running one began, in memory, which
crosses an exec. After a crash the worker says it, and until it does, its slot's BEGIN. What is
waited or slept between attempts is not counted.

Two deadlines, each with a timer of its own (``Deadlines``), the second of which depends on nothing
that the first has done: the task is asked to leave, and a grace later its tree is killed. Before
that the store is told, so that the attempt ends as timed out also if no master sees its end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import isfinite
from typing import Any

from taskd import log
from taskd.config import Config
from taskd.errors import Error
from taskd.master.attempts.attempts import Attempts
from taskd.master.attempts.endings import RAN_TOO_LONG
from taskd.master.fleet import Running, Worker
from taskd.master.loop import Loop, Storage, Timer
from taskd.model.duration import in_words
from taskd.model.worker import WorkerState
from taskd.protocol.records import check
from taskd.protocol.saved import Kind
from taskd.slot import reader
from taskd.slot.layout import BLOCK
from taskd.store.api import NoteTimeout


class Deadlines:
    """Calls ``act`` with each task whose time has come. One timer for all of them, as the loop
    keeps a timer until it is due even if it is cancelled."""

    def __init__(self, loop: Loop, act: Callable[[int], None]) -> None:
        self._loop = loop
        self._act = act
        self._at: dict[int, float] = {}
        self._timer: Timer | None = None

    def set(self, task: int, at: float) -> None:
        """``at``: by the monotonic clock; replaces the task's time."""
        self._at[task] = at
        self._wait_until(at)

    def drop(self, task: int) -> None:
        self._at.pop(task, None)

    def _wait_until(self, at: float) -> None:
        if self._timer is not None:
            if self._timer.when <= at:
                return
            self._timer.cancel()
        self._timer = self._loop.after(at - time.monotonic(), self._due)

    def _due(self) -> None:
        self._timer = None
        now = time.monotonic()
        for task, at in [each for each in self._at.items() if each[1] <= now]:
            self._act(task)
            if self._at.get(task) == at:  # else it has another time now
                self.drop(task)
        if self._at:
            self._wait_until(min(self._at.values()))


class Timeouts:
    """``watch``: an attempt has begun, or is known to this master. ``forget``: it is over."""

    def __init__(
        self,
        loop: Loop,
        config: Config,
        storage: Storage,
        attempts: Attempts,
        kill: Callable[[Worker, str], None],
    ) -> None:
        self._config = config
        self._storage = storage
        self._attempts = attempts
        self._kill_worker = kill
        self._asking = Deadlines(loop, self._ask)
        self._killing = Deadlines(loop, self._kill)

    def watch(self, worker: Worker) -> None:
        """May be called again for the same attempt."""
        running = worker.running
        if running is None or worker.state is not WorkerState.RUNNING:
            return
        limit = self._limit(running, worker)
        if limit is None:
            return
        now = time.monotonic()
        end = runs_since(worker, running, now) + limit - (running.row.used or 0.0)
        grace = self._config.daemon.timeout_grace
        if running.row.timed_out and running.timed_out is None:
            running.timed_out = why(limit)  # a master before this one has asked
        is_asked = running.timed_out is not None
        self._asking.set(running.task, end)
        self._killing.set(running.task, (end if is_asked else max(end, now)) + grace)

    def forget(self, running: Running) -> None:
        self._asking.drop(running.task)
        self._killing.drop(running.task)

    def _limit(self, running: Running, worker: Worker) -> float | None:
        """What the submission says, else the code that runs it, else its queue."""
        if running.row.timeout is not None:
            return running.row.timeout
        entry = worker.revision.tasks.get(running.name) or {}
        said: float | None = entry.get("timeout")
        return self._config.timeout(running.queue) if said is None else said

    def _at_work(self, task: int) -> tuple[Running, Worker] | None:
        """None: it ends just now, or is cancelled, which comes first."""
        running, worker = self._attempts.get(task), self._attempts.worker_of(task)
        if running is None or worker is None or worker.state is not WorkerState.RUNNING:
            return None
        return None if running.asked == "cancel" else (running, worker)

    def _ask(self, task: int) -> None:
        if (found := self._at_work(task)) is None:
            return
        running, worker = found
        limit = self._limit(running, worker)
        if running.timed_out is None and limit is not None:
            running.timed_out = why(limit)
            log.warning("timed out", task=task, attempt=running.attempt, why=running.timed_out)
            self._storage.write(NoteTimeout(task, running.attempt), lambda _: None)
        self._attempts.ask(task, "timeout", running.timed_out or "")

    def _kill(self, task: int) -> None:
        if (found := self._at_work(task)) is not None:
            running, worker = found
            grace = in_words(self._config.daemon.timeout_grace)
            running.timed_out = running.timed_out or RAN_TOO_LONG
            how = f"did not leave in {grace}, and was killed"
            self._kill_worker(worker, f"{running.timed_out}; {how}")


def why(limit: float) -> str:
    return f"{RAN_TOO_LONG} of {in_words(limit)}"


def runs_since(worker: Worker, running: Running, now: float) -> float:
    """When the attempt began, by the monotonic clock. Its slot is read only where the master that
    has sent the task crashed, until the worker has told it."""
    if running.begun is not None:
        return running.begun
    return begun(worker.slot_fd, running.task, running.attempt, now)


def begun(slot_fd: int, task: int, attempt: int, now: float) -> float:
    """When the attempt began, by its slot's first record; a task's code may have written there.
    ``now`` if that record is given back: a snapshot holds it, which has much data before it."""
    begin: dict[str, Any] = {}
    try:
        header = reader.read_header(slot_fd)
        record = reader.read_record(slot_fd, BLOCK, header)
        if record.kind == Kind.BEGIN:
            check(Kind.BEGIN, record.fields)
            if (record.fields["task"], record.fields["attempt"]) == (task, attempt):
                begin = record.fields
    except (Error, OSError):
        pass
    found = begin.get("begun")
    if found is None and begin.get("at") is not None:  # of 0.2
        found = now - max(0.0, time.time() - begin["at"])
    return min(found, now) if found is not None and isfinite(found) else now

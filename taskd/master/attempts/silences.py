"""Running tasks that report nothing for long: marked and told, never ended.

Signs of life are whatever is written into the attempt's slot (steps, cursors, checkpoints) or the
task's log, and progress. The master sees these files grow when it looks: when a task could have
been silent for as long as its code or its queue says (``silent_after``), and every AGAIN seconds
while it is. Elapsed time is that of the monotonic clock; the files' dates only say when, since the
look before, the last sign came, so that a clock that is set makes nobody silent.

What was told is in the store, so that no crash has it told twice. The mark itself is found anew.
"""

from __future__ import annotations

import os
import time

from taskd import log
from taskd.config import Config
from taskd.errors import StoreError
from taskd.master.attempts.attempts import Attempts
from taskd.master.attempts.timeouts import Deadlines, runs_since
from taskd.master.fleet import Running, Worker
from taskd.master.loop import Loop, Storage
from taskd.model.duration import in_words
from taskd.model.worker import WorkerState
from taskd.paths import Places
from taskd.record import Record
from taskd.store.api import Applied, NoteSilence

AGAIN = 5.0
"""Seconds between two looks at a task that is silent."""

_Files = tuple[tuple[int, int], ...]
"""Size and date (ns) of the slot and of the log."""


class _Seen(Record):
    """``at``: the look, ``sign``: the last sign of life, by the monotonic clock."""

    files: _Files
    at: float
    sign: float


class Silences:
    """``watch``: an attempt has begun, or is known to this master; ``heard``: it has told its
    progress. ``forget``: it is over. Of a silent one ``Running.silent`` is the last sign's date."""

    def __init__(
        self, loop: Loop, config: Config, places: Places, storage: Storage, attempts: Attempts
    ) -> None:
        self._config = config
        self._places = places
        self._storage = storage
        self._attempts = attempts
        self._looking = Deadlines(loop, self._look)
        self._seen: dict[int, _Seen] = {}

    def watch(self, worker: Worker) -> None:
        """May be called again for the same attempt."""
        running = worker.running
        if running is None or worker.state is not WorkerState.RUNNING:
            return
        limit = self._limit(running, worker)
        if limit is None:
            return
        now = time.monotonic()
        files = self._files(running, worker)
        sign = max(runs_since(worker, running, now), now - _age(files))
        self._seen[running.task] = _Seen(files, now, sign)
        self._judge(running, limit)

    def forget(self, running: Running) -> None:
        self._looking.drop(running.task)
        self._seen.pop(running.task, None)

    def heard(self, running: Running) -> None:
        if (seen := self._seen.get(running.task)) is None:
            return
        now = time.monotonic()
        self._seen[running.task] = seen._replace(at=now, sign=now)
        worker = self._attempts.worker_of(running.task)
        if running.silent is not None and worker is not None:
            limit = self._limit(running, worker)
            if limit is not None:
                self._judge(running, limit)

    def _limit(self, running: Running, worker: Worker) -> float | None:
        """What the code that runs it says, else its queue."""
        entry = worker.revision.tasks.get(running.name) or {}
        said: float | None = entry.get("silent_after")
        return self._config.silent_after(running.queue) if said is None else said

    def _look(self, task: int) -> None:
        running, worker = self._attempts.get(task), self._attempts.worker_of(task)
        seen = self._seen.get(task)
        if running is None or worker is None or seen is None:
            return
        limit = self._limit(running, worker)
        if limit is None or worker.state is not WorkerState.RUNNING:
            return
        now, files = time.monotonic(), self._files(running, worker)
        if files != seen.files:
            sign = max(seen.sign, now - min(_age(files), now - seen.at))
            seen = _Seen(files, now, sign)
        self._seen[task] = seen._replace(at=now)
        self._judge(running, limit)

    def _judge(self, running: Running, limit: float) -> None:
        """Whether it is silent, and when to look again."""
        now, task = time.monotonic(), running.task
        quiet = now - self._seen[task].sign
        if quiet < limit:
            if running.silent is not None:
                running.silent = None
                log.info("reports again", task=task, attempt=running.attempt)
                self._storage.write(NoteSilence(task, running.attempt, None, 0.0), lambda _: None)
            self._looking.set(task, now + limit - quiet)
            return
        self._looking.set(task, now + AGAIN)
        if running.silent is not None:
            return
        running.silent = time.time() - quiet
        why = f"silent: has reported nothing for {in_words(limit)}"

        def noted(outcome: Applied | StoreError) -> None:
            if isinstance(outcome, Applied) and outcome.result:
                log.warning("silent", task=task, attempt=running.attempt, why=why)

        self._storage.write(NoteSilence(task, running.attempt, why, time.time()), noted)

    def _files(self, running: Running, worker: Worker) -> _Files:
        found = []
        for file in (worker.slot_fd, self._places.task_log(running.task)):
            try:
                state = os.stat(file)
            except OSError:  # it has written nothing yet
                continue
            found.append((state.st_size, state.st_mtime_ns))
        return tuple(found)


def _age(files: _Files) -> float:
    """Seconds since the last of them was written."""
    newest = max((date for _, date in files), default=0)
    return max(0.0, time.time() - newest / 1e9)

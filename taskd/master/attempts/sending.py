"""A task that the store has given to a worker is sent to it, or given back to the store.

It is given back if nothing of it can begin: its worker is gone or used up, the daemon stops, or a
deploy comes while it cannot be sent.
"""

from __future__ import annotations

import os
import time
from typing import Any

import cbor2

from taskd import log
from taskd.config import Config
from taskd.master.attempts.attempts import Attempts
from taskd.master.attempts.endings import Ending, Endings
from taskd.master.fleet import Running, Worker, drop_slot, of_row
from taskd.master.loop import PASSING, Life, Loop, in_words
from taskd.model.endings import Facts
from taskd.model.worker import WorkerEvent, WorkerState
from taskd.paths import Places
from taskd.posix import files, memory
from taskd.slot import layout
from taskd.store.values import Taken

INLINE = 64 * 1024
"""Arguments and saved state above this go to the worker in a file, not through its socket."""


class Sending:
    """``begin``: the store has given a worker a task. ``on_free``: a worker that had one before it
    was idle is idle now."""

    def __init__(
        self,
        loop: Loop,
        life: Life,
        config: Config,
        places: Places,
        attempts: Attempts,
        endings: Endings,
    ) -> None:
        self._loop = loop
        self._life = life
        self._config = config
        self._places = places
        self._attempts = attempts
        self._endings = endings

    def begin(self, taken: Taken, worker: Worker) -> None:
        """The store has given the worker a task: send it."""
        running = of_row(taken.row)
        if taken.row.on_deploy is None:
            running.on_deploy = worker.revision.tasks[running.name]["on_deploy"]
        if worker.running is not None:  # it said idle before its end was recorded
            unclaim(worker)
            self._attempts.hold(running, None)
            facts = Facts("unbegun", False, reason="its worker has another task")
            self._endings.settle(Ending(running, facts))
            return
        self._attempts.hold(running, worker)
        self._attempts.unsent[worker.id] = taken
        if worker.state is not WorkerState.ENDING:  # else ``on_free`` goes on
            self._hand(running, worker)

    def on_free(self, worker: Worker, is_used_up: bool) -> None:
        """The worker is idle, and the store has given it a task while it ended the one before."""
        running = worker.running
        if running is None or worker.id not in self._attempts.unsent:
            return  # it says so before its end is recorded
        if is_used_up:
            self._give_back(running, "its worker was used up", worker)
        else:
            worker.take(WorkerEvent.CLAIM)
            self._hand(running, worker)

    def _hand(self, running: Running, worker: Worker) -> None:
        """Again and again while there is a transient error."""
        taken = self._attempts.unsent.get(worker.id)
        if taken is None or self._attempts.get(running.task) is not running:
            return  # its worker has died, and its slot has settled it
        if worker.state is not WorkerState.CLAIMED:
            self._give_back(running, "its worker was gone before it began", worker)
        elif self._life.is_stopping:
            self._give_back(running, "the daemon stops", worker)
        else:
            try:
                message = self._message(taken, running, worker)
            except PASSING as error:
                self._hand_later(running, worker, error)
                return
            running.waiting = None
            del self._attempts.unsent[worker.id]
            worker.take(WorkerEvent.SENT)
            running.begun = time.monotonic()
            worker.tell(message)
            self._attempts.on_sent(worker)
            log.info(
                "running",
                task=running.task,
                attempt=running.attempt,
                worker=worker.id,
                revision=worker.revision.name,
            )

    def _hand_later(self, running: Running, worker: Worker, error: BaseException) -> None:
        """For a deploy the task is given back: nothing may be half done at an exec."""
        self._loop.troubles.tell("a task cannot be handed to its worker", error)
        if self._life.may_dispatch:
            running.waiting = f"it cannot be handed to its worker yet: {in_words(error)}"
            self._loop.again(lambda: self._hand(running, worker))
        else:
            self._give_back(running, f"it could not be handed to a worker: {error}", worker)

    def _give_back(self, running: Running, why: str, worker: Worker) -> None:
        """The attempt is over before the task has begun."""
        self._attempts.unsent.pop(worker.id, None)

        def over(_: str) -> None:
            unclaim(worker)
            if worker.state is WorkerState.DEAD:
                drop_slot(self._places.slots, worker)

        self._endings.settle(Ending(running, Facts("unbegun", False, reason=why), over))

    def _message(self, taken: Taken, running: Running, worker: Worker) -> dict[str, Any]:
        """What the worker is told. Raises OSError where there is no room for the file with the
        task's arguments."""
        row, args, saved = taken
        message: dict[str, Any] = {
            "type": "run",
            "task": row.id,
            "attempt": row.attempt,
            "at": time.time(),
            "name": row.name,
            "version": row.version if row.saved_version is None else row.saved_version,
            "log": self._places.task_log(row.id),
            "log_limit": self._config.logs.max_size,
            "scratch": self._places.task_scratch(row.id),
            "failures": row.budgets.retries,
            "args": args,
            "saved": saved,
        }
        if row.slot is not None:
            message["slot"] = row.slot
        if len(args) + len(saved or b"") <= INLINE:
            return message
        memory.return_large()
        path = os.path.join(self._places.slots, layout.file_name(worker.id, layout.LOAD))
        with open(files.open_own(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
            file.write(cbor2.dumps({"args": args, "saved": saved}))
        return message | {"args": b"", "saved": None, "load": path}


def unclaim(worker: Worker) -> None:
    """Nothing was claimed for it, or that was given back."""
    if worker.state is WorkerState.CLAIMED:
        worker.take(WorkerEvent.UNCLAIM)

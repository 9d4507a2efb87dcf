"""Tasks as clients see them (TASK in ``protocol.control``): their rows, and what is in motion."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from taskd.master.attempts import Attempts, Dispatch
from taskd.master.fleet import CROWDED
from taskd.master.loop import NO_WORKER, UNWRITABLE, Storage, Troubles
from taskd.model.task import State
from taskd.posix import process, title
from taskd.protocol import frames
from taskd.store.api import Filter, Row

ROOM = frames.LIMIT // 2
"""Bytes after which a list ends; its last task, with a result and an error of the largest size,
still fits into the frame."""

_EACH = 500
"""Bytes of a task without its texts, at most."""

_NAMES = (title.WORKER, "python")
"""How a worker's process is called, and one that has not been given its name yet."""

_WAITING = frozenset({State.QUEUED, State.SCHEDULED})
_ONE_RUN = frozenset({State.RUNNING, State.SUCCEEDED, State.FAILED})
"""States in which a task with one attempt has run ever since, or until its end."""


class TaskViews:
    def __init__(
        self, troubles: Troubles, storage: Storage, attempts: Attempts, dispatch: Dispatch
    ) -> None:
        self._troubles = troubles
        self._storage = storage
        self._attempts = attempts
        self._dispatch = dispatch

    def view(self, row: Row) -> dict[str, Any]:
        """One task with all that there is to know."""
        found = self._glance(row, self._ran([row]).get(row.id))
        if row.state is State.SUCCEEDED:
            found["result"] = self._storage.reader.result(row.id)
        running = self._attempts.get(row.id)
        if row.state is State.RUNNING and not (running and running.waiting):
            found["reason"] = self._odd(row.id) or found["reason"]
        if row.state is State.QUEUED and running is None:
            found["reason"] = found["reason"] or self._dispatch.why_full(row.queue)
        return found

    def listed(self, filter: Filter, with_results: bool) -> list[dict[str, Any]]:
        """As many as fit into a frame, the newest first; the client asks for the rest by
        ``before``."""
        rows = self._storage.reader.tasks(filter)
        seconds = self._ran(rows)
        found: list[dict[str, Any]] = []
        size = 0
        for row in rows:
            task = self._glance(row, seconds.get(row.id))
            if with_results and row.state is State.SUCCEEDED:
                task["result"] = self._storage.reader.result(row.id)
            size += _size(task, row)
            if found and size > ROOM:
                break
            found.append(task)
        return found

    def _glance(self, row: Row, ran: float | None) -> dict[str, Any]:
        """One of many tasks: without its result, and without a look at its process."""
        running = self._attempts.get(row.id)
        progress, reason = row.progress, row.reason
        if running is not None and row.state is State.RUNNING:
            progress = running.progress or progress
            reason = running.waiting or running.why or reason
        if row.state is State.QUEUED:
            reason = self._why_it_waits() or reason
        return {
            "id": row.id,
            "name": row.name,
            "queue": row.queue,
            "state": row.state.value,
            "shown": _shown(row),
            "reason": reason,
            "attempt": row.attempt,
            "revision": row.revision,
            "progress": progress,
            "result": None,
            "error": row.error,
            "submitted": row.submitted,
            "started": row.started,
            "ended": row.ended,
            "ran": ran,
            "owner": row.owner,
            "priority": row.priority,
            "key": row.key,
            "run_at": row.run_at,
        }

    def _why_it_waits(self) -> str | None:
        """What keeps every waiting task from being started just now, if something does."""
        for what in (UNWRITABLE, NO_WORKER, CROWDED):
            if (why := self._troubles.why(what)) is not None:
                return f"waits: {what}: {why}"
        return None

    def _odd(self, task: int) -> str | None:
        """What is the matter with the process of a running task, if something is; seen from
        outside."""
        worker = self._attempts.worker_of(task)
        if worker is None or not worker.pid:
            return None
        if worker.asked_to_leave is not None:
            return f"{worker.asked_to_leave}; its process is not dead yet"
        if process.is_stopped(worker.pid):
            return f"its process {worker.pid} is stopped, and goes on after SIGCONT"
        if worker.channel is None and (name := process.name(worker.pid)) is not None:
            it = "" if name.startswith(_NAMES) else f", and is the program {name!r} now"
            return f"its process {worker.pid} is not connected to the daemon{it}; it is let run"
        return None

    def _ran(self, rows: Sequence[Row]) -> dict[int, float]:
        """Seconds that the attempts of these tasks ran; without those that never did.

        Waiting, for a retry or an operator or asleep, is no running. Of most tasks, which have one
        attempt, their row says it; for all others together the store is asked once.
        """
        now = time.time()
        begun = [row for row in rows if row.started is not None]
        odd = [row.id for row in begun if row.attempt != 1 or row.state not in _ONE_RUN]
        found = self._storage.reader.ran(odd, now) if odd else {}
        for row in begun:
            if row.id not in found and row.started is not None:
                found[row.id] = max(0.0, (row.ended or now) - row.started)
        return found


def _shown(row: Row) -> str:
    """The state, with ``retrying`` and ``resuming`` told apart."""
    if row.state in _WAITING and row.budgets.retries:
        return "retrying"
    if row.saved_version is not None and row.state in (State.QUEUED, State.RUNNING):
        return "resuming"
    return row.state.value


def _size(task: dict[str, Any], row: Row) -> int:
    """About how many bytes it takes in the frame."""
    texts = [*task.values(), *(row.error or {}).values(), *(task["progress"] or {}).values()]
    return _EACH + sum(
        len(text) if isinstance(text, bytes) or text.isascii() else len(text.encode())
        for text in texts
        if isinstance(text, (str, bytes))
    )

"""Tasks as clients see them (TASK in ``protocol.control``): the store's row and the attempt."""

from __future__ import annotations

import time
from typing import Any

from taskd.config import Config
from taskd.master.attempts import Attempts, Dispatch, Pauses, date, runs_since
from taskd.master.clients import told_arguments, waits
from taskd.master.fleet import CROWDED, Revisions, Running
from taskd.master.loop import NO_WORKER, UNWRITABLE, Troubles
from taskd.model import retrying
from taskd.model.task import SETTLED, State
from taskd.paths import Places
from taskd.posix import memory, process, title
from taskd.protocol import cbor, frames
from taskd.record import Record
from taskd.store.queries import Told
from taskd.store.values import Attempt, Row

ROOM = frames.LIMIT // 2
"""Bytes after which a list ends; its last task, with a result and an error of the largest size,
still fits into the frame."""

_EACH = 500
"""Bytes of a task without its texts, at most."""

WAITS = 10
"""Waits before retries that are told of a task, at most."""

_NAMES = (title.WORKER, "python")
"""The names of a worker's process: later, and before it has set its name."""

_WAITING = frozenset({State.QUEUED, State.SCHEDULED})


class TaskViews(Record):
    troubles: Troubles
    places: Places
    revisions: Revisions
    attempts: Attempts
    dispatch: Dispatch
    pauses: Pauses
    config: Config

    def view(self, told: Told) -> dict[str, Any]:
        """One task in full: also with what its process shows."""
        found, row = self._glance(told), told.row
        running = self.attempts.get(row.id)
        if (worker := self.attempts.worker_of(row.id)) is not None and worker.pid:
            found |= {"pid": worker.pid, "memory": memory.of([worker.pid])}
        if row.attempt:
            found["log"] = self.places.task_log(row.id)
        if row.state is State.RUNNING and not (running and running.waiting):
            found["reason"] = self._odd(row.id) or found["reason"]
        if row.state is State.QUEUED and running is None:
            found["reason"] = found["reason"] or self.dispatch.why_full(row.queue)
        found["retries"] = self._retries(row)
        found["timeout"] = self._timeout(row, running)
        return found

    def listed(self, all_told: list[Told]) -> list[dict[str, Any]]:
        """As many of the tasks as fit into a frame; the client asks for the rest by ``before``."""
        found: list[dict[str, Any]] = []
        size = 0
        for told in all_told:
            task = self._glance(told)
            size += _size(task, told.row)
            if found and size > ROOM:
                break
            found.append(task)
        return found

    def _glance(self, told: Told) -> dict[str, Any]:
        """One of many tasks: without a look at its process."""
        row = told.row
        running = self.attempts.get(row.id)
        progress, reason = row.progress, row.reason
        if running is not None and row.state is State.RUNNING:
            progress = running.progress or progress
            reason = running.waiting or running.why or reason
            if running.silent is not None and not running.waiting and not running.why:
                reason = f"silent: has reported nothing since {date(running.silent)}"
        if row.state is State.QUEUED:
            why = self.trouble()
            if why is None and running is None:
                why = self.pauses.why(row.queue, row.name)
            if why is not None:
                reason = why
            elif row.blocked is not None:
                reason = f"waits for the limit '{row.blocked}' (taskctl why {row.id})"
        if row.waits_for:
            reason = waits.why(row, told.after)
        if row.next_key is not None and row.state is State.SCHEDULED:
            reason = f"waits until the task is over that has its key ({row.next_key!r})"
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
            "result": told.result,
            "error": row.error,
            "submitted": row.submitted,
            "started": row.started,
            "ended": row.ended,
            "ran": told.ran,
            "arguments": told_arguments.in_words(row.name, told.args),
            "owner": row.owner,
            "priority": row.priority,
            "key": row.next_key if row.key is None else row.key,
            "run_at": None if row.next_key is not None else row.run_at,
            "expires": row.expires,
            "silent": None if running is None else running.silent,
            "after": [waits.view(each) for each in told.after],
            "waits_for": row.waits_for,
            "if_failed": row.if_failed,
            "parent": row.parent,
        }

    def _timeout(self, row: Row, running: Running | None) -> dict[str, Any] | None:
        """How long a try may run, and has run; None: it is over, or has no limit."""
        if row.state in SETTLED:
            return None
        revision = self.revisions.current
        worker = self.attempts.worker_of(row.id)
        if worker is not None:
            revision = worker.revision
        said = {} if revision is None else revision.tasks.get(row.name) or {}
        limits = (row.timeout, said.get("timeout"), self.config.timeout(row.queue))
        limit = next((each for each in limits if each is not None), None)
        if limit is None:
            return None
        used = row.used or 0.0
        if running is not None and worker is not None and row.state is State.RUNNING:
            now = time.monotonic()
            used += now - runs_since(worker, running, now)
        return {"limit": limit, "used": used}

    def trouble(self) -> str | None:
        """What holds up every queued task."""
        for what in (UNWRITABLE, NO_WORKER, CROWDED):
            if (why := self.troubles.why(what)) is not None:
                return f"waits: {what}: {why}"
        return None

    def _retries(self, row: Row) -> dict[str, Any] | None:
        """How often and when it is tried again, as the code says that a failure would be judged by
        if it came now; None: it is over, or is not tried again."""
        revision = self.revisions.current
        if row.state is State.RUNNING:
            live = self.revisions.live()
            revision = next((each for each in live if each.name == row.revision), revision)
        if row.state in SETTLED or revision is None or row.name not in revision.tasks:
            return None
        entry = revision.tasks[row.name]
        told = entry.get("retry")  # 0.2 does not tell
        failure = None if told is None else retrying.failure(told)
        allowed = retrying.allowed(row.retries_said, failure, entry["retries"])
        if allowed == 0:
            return None
        policy = retrying.Policy() if failure is None else failure.policy
        return {
            "used": row.budgets.retries,
            "allowed": allowed,
            "waits": list(retrying.planned(policy, min(allowed, WAITS))),
            "by_function": told is not None and bool(told.get("function")),
        }

    def _odd(self, task: int) -> str | None:
        """What is wrong with the process of a running task, as far as /proc and its connection
        tell; None: nothing."""
        worker = self.attempts.worker_of(task)
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


def attempt_view(attempt: Attempt) -> dict[str, Any]:
    """An ATTEMPT of ``protocol.control``."""
    worker, pid = (None, None) if attempt.worker is None else cbor.loads(attempt.worker)[:2]
    return attempt._asdict() | {"worker": worker and worker.hex(), "pid": pid}


def _shown(row: Row) -> str:
    """The state's name, or ``retrying`` or ``resuming`` for a task that has run before."""
    if row.waits_for:
        return "waiting"
    if row.state in _WAITING and row.budgets.retries:
        return "retrying"
    if row.saved_version is not None and row.state in (State.QUEUED, State.RUNNING):
        return "resuming"
    return row.state.value


def _size(task: dict[str, Any], row: Row) -> int:
    """About how many bytes the task takes in the frame."""
    texts = [*task.values(), *(row.error or {}).values(), *(task["progress"] or {}).values()]
    return _EACH + sum(
        len(text) if isinstance(text, bytes) or text.isascii() else len(text.encode())
        for text in texts
        if isinstance(text, (str, bytes))
    )

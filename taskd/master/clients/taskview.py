"""A task as clients see it (TASK in ``protocol.control``): its row, and what is in motion."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from taskd.master.fleet.ceilings import CROWDED
from taskd.master.loop.trouble import NO_WORKER, UNWRITABLE
from taskd.model.task import State
from taskd.posix import process, title
from taskd.store.api import Row

if TYPE_CHECKING:
    from taskd.master.master import Master

OURS = (title.WORKER, "python")
"""How a worker is called, and one of a version that did not say so."""

_WAITING = frozenset({State.QUEUED, State.SCHEDULED})
_ONE_RUN = frozenset({State.RUNNING, State.SUCCEEDED, State.FAILED})
"""States in which a task with one attempt has run ever since, or until its end."""


def shown(row: Row) -> str:
    """The state, with ``retrying`` and ``resuming`` told apart."""
    if row.state in _WAITING and row.budgets.retries:
        return "retrying"
    if row.saved_version is not None and row.state in (State.QUEUED, State.RUNNING):
        return "resuming"
    return row.state.value


def _why_it_waits(master: Master) -> str | None:
    """What keeps every waiting task from being started just now, if anything does."""
    for what in (UNWRITABLE, NO_WORKER, CROWDED):
        if (why := master.loop.troubles.why(what)) is not None:
            return f"waits: {what}: {why}"
    return None


def _odd(master: Master, task: int) -> str | None:
    """What is the matter with the process of a running task, if something is; seen from outside."""
    worker = master.attempts.worker_of(task)
    if worker is None or not worker.pid:
        return None
    if worker.asked_to_leave is not None:
        return f"{worker.asked_to_leave}; its process is not dead yet"
    if process.is_stopped(worker.pid):
        return f"its process {worker.pid} is stopped, and goes on after SIGCONT"
    if worker.channel is None and (name := process.name(worker.pid)) is not None:
        it = "" if name.startswith(OURS) else f", and is the program {name!r} now"
        return f"its process {worker.pid} is not connected to the daemon{it}; it is let run"
    return None


def ran(master: Master, rows: Sequence[Row]) -> dict[int, float]:
    """Seconds that the attempts of these tasks ran; without those that never did.

    Waiting, for a retry or an operator or asleep, is no running. Of most tasks, which have one
    attempt, their row says it; for all others together the store is asked once.
    """
    now = time.time()
    begun = [row for row in rows if row.started is not None]
    odd = [row.id for row in begun if row.attempt != 1 or row.state not in _ONE_RUN]
    found = master.reader.ran(odd, now) if odd else {}
    for row in begun:
        if row.id not in found and row.started is not None:
            found[row.id] = max(0.0, (row.ended or now) - row.started)
    return found


def view(master: Master, row: Row) -> dict[str, Any]:
    """One task with all that there is to know."""
    found = glance(master, row, ran(master, [row]).get(row.id))
    if row.state is State.SUCCEEDED:
        found["result"] = master.reader.result(row.id)
    running = master.attempts.get(row.id)
    if row.state is State.RUNNING and not (running and running.waiting):
        found["reason"] = _odd(master, row.id) or found["reason"]
    if row.state is State.QUEUED and running is None:
        found["reason"] = found["reason"] or master.dispatch.why_full(row.queue)
    return found


def glance(master: Master, row: Row, ran: float | None) -> dict[str, Any]:
    """One of many tasks: without its result, and without a look at its process."""
    running = master.attempts.get(row.id)
    progress, reason = row.progress, row.reason
    if running is not None and row.state is State.RUNNING:
        progress = running.progress or progress
        reason = running.waiting or running.why or reason
    if row.state is State.QUEUED:
        reason = _why_it_waits(master) or reason
    return {
        "id": row.id,
        "name": row.name,
        "queue": row.queue,
        "state": row.state.value,
        "shown": shown(row),
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

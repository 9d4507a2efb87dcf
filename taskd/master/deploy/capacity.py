"""Whether one more revision fits: the cap on live revisions, and the memory that is left.

Asked at the beginning of a deploy; a refusal names who holds which revision. What a new revision
will need is taken from the current one: its zygote, and a worker for each place that is free in
the queues. That is a guess, bounded at MOST_WORKERS: nobody knows what the tasks will use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskd.config import Config, size_text
from taskd.errors import DeployRefused
from taskd.model.revision import LIVE
from taskd.posix import memory

if TYPE_CHECKING:
    from taskd.master.fleet.revision import Revision
    from taskd.master.master import Master

SHOWN = 5
"""Tasks named for each revision."""

WORKER = 4_600_000
"""Bytes of its own that a worker has after a small task (measured, with a frozen heap)."""

MOST_WORKERS = 32
"""Workers of a new revision that are reckoned with."""

_ADVICE = (
    "Wait until one has drained, or end it with `taskctl drain --revision R --checkpoint` "
    "(or --now)"
)


def check(master: Master, settings: Config, path: str) -> None:
    """Raises DeployRefused if the release at ``path`` would be one revision too many."""
    live = [r for r in master.revisions if r.state in LIVE]
    if any(r.path == path for r in live):
        return
    if len(live) >= settings.app.max_revisions:
        raise DeployRefused(
            f"{len(live)} revisions are alive, and [app] max_revisions is "
            f"{settings.app.max_revisions}: {blockers(master, live)}. {_ADVICE}"
        )
    _check_memory(master, settings, live)


def _check_memory(master: Master, settings: Config, live: list[Revision]) -> None:
    reserve = settings.app.memory_reserve
    free = memory.available() if reserve is not None else None
    if reserve is None or free is None:
        return
    need = needed(master, settings)
    if free - need < reserve:
        raise DeployRefused(
            f"{size_text(free)} of memory are available; one more revision needs about "
            f"{size_text(need)}, and [app] memory_reserve = {size_text(reserve)} must be left: "
            f"{blockers(master, live, with_memory=True)}. {_ADVICE}"
        )


def needed(master: Master, settings: Config) -> int:
    """Bytes that one more revision will need, as far as one can tell."""
    current = master.revisions.current
    zygote = memory.alone(current.pid) if current is not None and current.pid else None
    occupied = master.attempts.occupied
    free = sum(max(0, count - occupied[queue]) for queue, count in settings.queues.items())
    return (zygote or 0) + min(free, MOST_WORKERS) * WORKER


def blockers(master: Master, live: list[Revision], with_memory: bool = False) -> str:
    """Who holds which revision, in words."""
    uses = {r.number: f" and uses {_used(master, r)}" if with_memory else "" for r in live}
    return "; ".join(f"{r.name} is held by {_holders(master, r)}{uses[r.number]}" for r in live)


def _used(master: Master, revision: Revision) -> str:
    pids = [worker.pid for worker in master.workers.of(revision) if worker.pid]
    used = memory.of([*pids, *([revision.pid] if revision.pid else [])])
    return "memory that the kernel does not tell" if used is None else size_text(used)


def _holders(master: Master, revision: Revision) -> str:
    if revision is master.revisions.current:
        return "being the current one"
    found = [w.running for w in master.workers.of(revision) if w.running is not None]
    shown = ", ".join(f"task {running.task} ({running.name})" for running in found[:SHOWN])
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return shown + more or "tasks that wait for it"

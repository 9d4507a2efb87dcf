"""Whether one more revision fits: the cap on live revisions, and the memory that is left.

Asked at the beginning of a deploy; a refusal names who holds which revision. What a new revision
will need is taken from the current one: its zygote, and a worker for each place that is free in
the queues. That is a guess, bounded at MOST_WORKERS: what the tasks will use is not known.
"""

from __future__ import annotations

from taskd.config import Config, size_text
from taskd.errors import DeployRefused
from taskd.master.attempts import Attempts
from taskd.master.fleet import Revision, Revisions, Workers
from taskd.model.revision import LIVE
from taskd.posix import memory

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


class Capacity:
    def __init__(self, revisions: Revisions, workers: Workers, attempts: Attempts) -> None:
        self._revisions = revisions
        self._workers = workers
        self._attempts = attempts

    def check(self, settings: Config, path: str) -> None:
        """Raises DeployRefused if the release at ``path`` would be one revision too many."""
        live = [r for r in self._revisions if r.state in LIVE]
        if any(r.path == path for r in live):
            return
        if len(live) >= settings.app.max_revisions:
            raise DeployRefused(
                f"{len(live)} revisions are alive, and [app] max_revisions is "
                f"{settings.app.max_revisions}: {self.blockers(live)}. {_ADVICE}"
            )
        reserve = settings.app.memory_reserve
        free = memory.available() if reserve is not None else None
        if reserve is None or free is None:
            return
        need = self.needed(settings)
        if free - need < reserve:
            raise DeployRefused(
                f"{size_text(free)} of memory are available; one more revision needs about "
                f"{size_text(need)}, and [app] memory_reserve = {size_text(reserve)} must be left: "
                f"{self.blockers(live, with_memory=True)}. {_ADVICE}"
            )

    def needed(self, settings: Config) -> int:
        """Bytes that one more revision will need, as far as one can tell."""
        current = self._revisions.current
        pid = current.zygote.pid if current is not None else None
        zygote = memory.alone(pid) if pid else None
        occupied = self._attempts.occupied
        free = sum(max(0, count - occupied[queue]) for queue, count in settings.queues.items())
        return (zygote or 0) + min(free, MOST_WORKERS) * WORKER

    def blockers(self, live: list[Revision], with_memory: bool = False) -> str:
        """What holds which revision, in words."""
        uses = {r.number: f" and uses {self._used(r)}" if with_memory else "" for r in live}
        return "; ".join(f"{r.name} is held by {self._holders(r)}{uses[r.number]}" for r in live)

    def _used(self, revision: Revision) -> str:
        pids = [worker.pid for worker in self._workers.of(revision) if worker.pid]
        zygote = [revision.zygote.pid] if revision.zygote.pid else []
        used = memory.of([*pids, *zygote])
        return "memory that the kernel does not tell" if used is None else size_text(used)

    def _holders(self, revision: Revision) -> str:
        if revision is self._revisions.current:
            return "being the current one"
        found = [w.running for w in self._workers.of(revision) if w.running is not None]
        shown = ", ".join(f"task {running.task} ({running.name})" for running in found[:SHOWN])
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        return shown + more or "tasks that wait for it"

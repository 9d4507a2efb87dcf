"""Whether one more revision fits: the cap on live revisions, and the available memory.

Checked at the beginning of a deploy; a refusal names the tasks that hold each revision. The memory
that a new revision needs is estimated from the current one: its zygote, and a worker for each free
place in the queues, at most MOST_WORKERS. What the tasks will use is not known.
"""

from __future__ import annotations

from taskd.config import Config, size_text
from taskd.errors import DeployRefused
from taskd.master.attempts import Attempts
from taskd.master.fleet import Revision, Revisions, Workers
from taskd.model.revision import LIVE
from taskd.posix import memory
from taskd.record import Record

SHOWN = 5
"""Tasks that a refusal names for each revision."""

WORKER = 4_600_000
"""Private bytes of a worker after a small task (measured, with a frozen heap)."""

MOST_WORKERS = 32
"""Workers that the estimate for a new revision counts at most."""

_ADVICE = (
    "Wait until one has drained, or end it with `taskctl drain --revision R --checkpoint` "
    "(or --now)"
)


class Capacity(Record):
    revisions: Revisions
    workers: Workers
    attempts: Attempts

    def check(self, settings: Config, path: str) -> None:
        """Raises DeployRefused if the release at ``path`` would be one revision too many."""
        live = [r for r in self.revisions if r.state in LIVE]
        if any(r.path == path and r.app.is_proved_as(settings.app) for r in live):
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
        """The estimate of the bytes that one more revision will need."""
        current = self.revisions.current
        pid = current.zygote.pid if current is not None else None
        zygote = memory.alone(pid) if pid else None
        occupied = self.attempts.occupied
        free = sum(max(0, count - occupied[queue]) for queue, count in settings.queues.items())
        return (zygote or 0) + min(free, MOST_WORKERS) * WORKER

    def blockers(self, live: list[Revision], with_memory: bool = False) -> str:
        """What holds each revision, and with ``with_memory`` the memory it uses, in words."""
        told = []
        for revision in live:
            workers = self.workers.of(revision)
            found = [w.running for w in workers if w.running is not None]
            holders = ", ".join(
                f"task {running.task} ({running.name})" for running in found[:SHOWN]
            )
            if revision is self.revisions.current:
                holders = "being the current one"
            elif len(found) > SHOWN:
                holders += f" and {len(found) - SHOWN} more"
            text = f"{revision.name} is held by {holders or 'tasks that wait for it'}"
            if with_memory:
                pids = [pid for pid in (*(w.pid for w in workers), revision.zygote.pid) if pid]
                used = memory.of(pids)
                unknown = "memory that the kernel does not tell"
                text += f" and uses {unknown if used is None else size_text(used)}"
            told.append(text)
        return "; ".join(told)

"""Retires revisions of which no worker lives and for which no task waits."""

from __future__ import annotations

from collections.abc import Callable

from taskd import log
from taskd.master.fleet.proofs import Proofs
from taskd.master.fleet.recheck import Expected
from taskd.master.fleet.respawn import Respawn
from taskd.master.fleet.revision import Revision
from taskd.master.fleet.revisions import Revisions
from taskd.master.fleet.workers import Workers
from taskd.master.fleet.zygotes import Zygotes
from taskd.master.loop import Look, Loop, Notice
from taskd.model.revision import RevisionEvent, RevisionState
from taskd.model.routing import Held, route
from taskd.revision import record

Wanted = Callable[[], set[tuple[str, int | None]]]
"""Gives the name and version of each task that waits, or whose attempt ends just now."""


class Retirement:
    """``look``: retire the zygotes that nothing needs, and forget the revisions that are gone.

    ``retired``: called when a drained revision's zygote was told to end.
    """

    def __init__(
        self,
        loop: Loop,
        directory: str,
        revisions: Revisions,
        workers: Workers,
        zygotes: Zygotes,
        proofs: Proofs,
        expected: Expected,
        respawn: Respawn,
        wanted: Wanted,
    ) -> None:
        """``directory``: holds the zygotes' records."""
        self._directory = directory
        self._revisions = revisions
        self._workers = workers
        self._zygotes = zygotes
        self._proofs = proofs
        self._expected = expected
        self._respawn = respawn
        self._wanted = wanted
        self.retired: Notice[[]] = Notice()
        self.look = Look(loop, "no old revision is retired", self._look).ask

    def _look(self) -> None:
        for revision in self._revisions:
            # A deploy or a start is about to promote it, although it may have no worker now.
            is_awaited = (
                revision in (self._revisions.target, self._expected.revision)
                or revision in self._proofs.under_way
            )
            if is_awaited or self._workers.of(revision):
                continue
            if revision.state is RevisionState.DRAINING and not self._is_needed(revision):
                self._zygotes.retire(revision)
                revision.take(RevisionEvent.EMPTY)
                log.info("revision drained", revision=revision.name)
                self.retired()
            elif revision.state is RevisionState.REJECTED:
                revision.take(RevisionEvent.EMPTY)
        for revision in self._revisions:
            if revision.state is RevisionState.GONE and revision.zygote.pid is None:
                self._revisions.remove(revision)
                record.remove(self._directory, revision.zygote.id)
                self._respawn.forget(revision)

    def _is_needed(self, revision: Revision) -> bool:
        """Whether a wanted task runs in no other revision."""
        others = [r for r in self._revisions.live() if r is not revision]
        return any(
            name in revision.tasks and isinstance(route(others, name, version), Held)
            for name, version in self._wanted()
        )

"""Retires revisions of which no worker lives and for which no task waits."""

from __future__ import annotations

import functools
from collections.abc import Callable

from taskd import log
from taskd.errors import StoreError
from taskd.master.fleet.proofs import Proofs
from taskd.master.fleet.recheck import Expected
from taskd.master.fleet.respawn import Respawn
from taskd.master.fleet.revision import Revision
from taskd.master.fleet.revisions import Revisions
from taskd.master.fleet.workers import Workers
from taskd.master.fleet.zygotes import Zygotes
from taskd.master.loop import Look, Loop, Notice, Storage
from taskd.model.revision import RevisionEvent, RevisionState
from taskd.model.routing import Held, route
from taskd.revision import record
from taskd.store.queries import WaitingGroups
from taskd.store.values import Group

Named = set[tuple[str, int | None]]
"""Names and versions of tasks; None: that of what is saved is not known."""

UNRETIRED = "no old revision is retired"
"""The trouble's name."""


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
        storage: Storage,
        running: Callable[[], set[str]],
        offered: Callable[[], set[int]],
    ) -> None:
        """``directory``: holds the zygotes' records. ``running``: gives the names of the tasks that
        run, or are on their way back to the store; ``offered``: the numbers of the revisions to
        whose workers, dead ones too, the store may be giving a task just now."""
        self._loop = loop
        self._directory = directory
        self._revisions = revisions
        self._workers = workers
        self._zygotes = zygotes
        self._proofs = proofs
        self._expected = expected
        self._respawn = respawn
        self._storage = storage
        self._running = running
        self._offered = offered
        self._is_asking = False  # which tasks wait …
        self._is_due = False  # … and ``look`` was called meanwhile
        self.retired: Notice[[]] = Notice()
        self.look = Look(loop, UNRETIRED, self._look).ask

    def _look(self) -> None:
        for revision in self._left(RevisionState.REJECTED):
            revision.take(RevisionEvent.EMPTY)
        self._forget()
        if self._is_asking:
            self._is_due = True
        elif self._left(RevisionState.DRAINING):
            self._is_asking = True
            retire = functools.partial(self._retire, self._running())
            self._storage.gather(WaitingGroups(), retire)

    def _left(self, state: RevisionState) -> list[Revision]:
        """The revisions in ``state`` without a worker, but for one that a deploy or a start is
        about to promote, although it may have no worker now, and for one to whose last worker the
        store may have given a task before it died: that task comes back."""
        awaited = {self._revisions.target, self._expected.revision, *self._proofs.under_way}
        offered = self._offered()
        return [
            revision
            for revision in self._revisions
            if revision.state is state
            and revision not in awaited
            and revision.number not in offered
            and not self._workers.of(revision)
        ]

    def _retire(self, names: set[str], groups: list[Group] | StoreError) -> None:
        """``names``: of the tasks that ran when the store was asked."""
        self._is_asking = False
        if isinstance(groups, StoreError):
            self._loop.troubles.tell(UNRETIRED, groups)
            self._loop.again(self.look)
            return
        wanted: Named = {(name, None) for name in names | self._running()}
        wanted |= {(group.name, group.version) for group in groups}
        for revision in self._left(RevisionState.DRAINING):
            if not self._is_needed(revision, wanted):
                self._zygotes.retire(revision)
                revision.take(RevisionEvent.EMPTY)
                log.info("revision drained", revision=revision.name)
                self.retired()
        self._forget()
        if self._is_due:
            self._is_due = False
            self.look()

    def _forget(self) -> None:
        for revision in self._revisions:
            if revision.state is RevisionState.GONE and revision.zygote.pid is None:
                self._revisions.remove(revision)
                record.remove(self._directory, revision.zygote.id)
                self._respawn.forget(revision)

    def _is_needed(self, revision: Revision, wanted: Named) -> bool:
        """Whether a wanted task runs in no other revision."""
        others = [r for r in self._revisions.live() if r is not revision]
        return any(
            name in revision.tasks and isinstance(route(others, name, version), Held)
            for name, version in wanted
        )

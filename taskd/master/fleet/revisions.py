"""The revisions that the master knows: the current one, the live ones, the refused releases."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from taskd.config import App
from taskd.errors import Error
from taskd.master.fleet.revision import Revision
from taskd.model.revision import LIVE, RevisionEvent, RevisionState
from taskd.paths import Places
from taskd.revision import confirmed, rejected, release
from taskd.revision.rejected import Rejected


class Revisions:
    """Owns every Revision. ``current``: fresh tasks go there. ``target``: the one that a deploy
    under way is about to promote. ``rejected``: refused deploys, as on disk."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._all: list[Revision] = []
        self._numbers = 0
        self.current: Revision | None = None
        self.target: Revision | None = None
        self.rejected: list[Rejected] = []

    def __iter__(self) -> Iterator[Revision]:
        return iter(list(self._all))

    def live(self) -> list[Revision]:
        """Revisions that may run tasks: the current one first, then the newest."""
        found = [r for r in self._all if r.state in LIVE]
        return sorted(found, key=lambda r: (r is not self.current, -r.number))

    def by_number(self, number: int) -> Revision:
        return next(r for r in self._all if r.number == number)

    def living(self, path: str) -> Revision | None:
        """The live revision of the release at ``path``."""
        return next((r for r in self.live() if r.path == path), None)

    def add(self, path: str, app: App) -> Revision:
        """Make a new revision, which is not proven yet."""
        revision = Revision(path, self._numbers + 1, app, self.name_of(path))
        self.restore(revision)
        return revision

    def restore(self, revision: Revision) -> None:
        """Add a revision, as it was in the master before this one or is made here."""
        self._numbers = max(self._numbers, revision.number)
        self._all.append(revision)
        if revision.state is RevisionState.CURRENT:
            self.current = revision

    def remove(self, revision: Revision) -> None:
        self._all.remove(revision)

    def name_of(self, path: str) -> str:
        """The name of the release at ``path``: it differs from the names of all revisions, and of
        the releases that the next start or a rollback uses."""
        if (living := self.living(path)) is not None:
            return living.name
        others = [revision.path for revision in self._all]
        with contextlib.suppress(Error, OSError, ImportError):  # a start reports what is wrong
            if (found := confirmed.read(self._places.confirmed)) is not None:
                others += [found.release, found.previous or ""]
        return release.name(path, others)

    def confirm(self, revision: Revision) -> None:
        """Make ``revision`` the current one, to which fresh tasks go; the one before drains."""
        before = self.current
        if before is not None and before is not revision:
            before.take(RevisionEvent.SUPERSEDE)
            before.draining_since = time.time()
        revision.take(RevisionEvent.CONFIRM)
        revision.draining_since = 0.0
        self.current = revision
        keep_record(revision)

    def remember(self, path: str, reason: str) -> None:
        """Record on disk that a deploy of the release at ``path`` was refused."""
        self.rejected = rejected.add(self.rejected, path, self.name_of(path), reason, time.time())
        rejected.write(self._places.state, self.rejected)


def keep_record(revision: Revision) -> None:
    """Have the zygote of a live revision keep its record on disk, so that the next master finds it
    if this one dies. A revision that is not live leaves no record."""
    revision.zygote.tell({"type": "keep"})

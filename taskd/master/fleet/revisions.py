"""The revisions that the master knows: which is current, which live, which was refused."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from taskd.config import App
from taskd.errors import Error
from taskd.master.fleet.revision import Revision
from taskd.model.revision import LIVE, RevisionEvent, RevisionState
from taskd.paths import Places
from taskd.revision import confirmed, naming, rejected
from taskd.revision.rejected import Rejected


class Revisions:
    """Owns every Revision. ``target``: the one that a deploy under way is about to promote."""

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
        """Those that may run tasks: the current one first, then the newest."""
        found = [r for r in self._all if r.state in LIVE]
        return sorted(found, key=lambda r: (r is not self.current, -r.number))

    def by_zygote(self, zygote_id: bytes) -> Revision | None:
        return next((r for r in self._all if r.zygote.id == zygote_id), None)

    def by_number(self, number: int) -> Revision:
        return next(r for r in self._all if r.number == number)

    def living(self, path: str) -> Revision | None:
        """The live revision of the release at ``path``."""
        return next((r for r in self.live() if r.path == path), None)

    def add(self, path: str, app: App) -> Revision:
        """A new revision, which has yet to be proven."""
        revision = Revision(path, self._numbers + 1, app, self.name_of(path))
        self.restore(revision)
        return revision

    def restore(self, revision: Revision) -> None:
        """Take over a revision, of the master before this one perhaps."""
        self._numbers = max(self._numbers, revision.number)
        self._all.append(revision)
        if revision.state is RevisionState.CURRENT:
            self.current = revision

    def remove(self, revision: Revision) -> None:
        self._all.remove(revision)

    def name_of(self, path: str) -> str:
        """What the release at ``path`` is called beside those that live, serve at the next start or
        are gone back to."""
        if (living := self.living(path)) is not None:
            return living.name
        others = [revision.path for revision in self._all]
        with contextlib.suppress(Error, OSError, ImportError):  # a start says what is wrong with it
            if (found := confirmed.read(self._places.confirmed)) is not None:
                others += [found.release, found.previous or ""]
        return naming.name(path, others)

    def confirm(self, revision: Revision) -> None:
        """From now on fresh tasks go to ``revision``; the one before drains."""
        before = self.current
        if before is not None and before is not revision:
            before.take(RevisionEvent.SUPERSEDE)
            before.draining_since = time.time()
        revision.take(RevisionEvent.CONFIRM)
        revision.draining_since = 0.0
        self.current = revision
        keep_record(revision)

    def remember(self, path: str, reason: str) -> None:
        """A deploy of the release at ``path`` was refused."""
        self.rejected = rejected.add(self.rejected, path, self.name_of(path), reason, time.time())
        rejected.write(self._places.state, self.rejected)


def keep_record(revision: Revision) -> None:
    """The revision serves: should the master die, the next one must find it so. A revision that has
    not proven itself leaves no record."""
    revision.zygote.tell({"type": "keep"})

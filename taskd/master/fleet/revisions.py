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
from taskd.revision import confirmed, environment, proved, rejected, release
from taskd.revision.rejected import Rejected

SHOWN = 20
"""Variables that ``checks`` names of each revision."""


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

    def living(self, path: str, app: App | None = None) -> Revision | None:
        """The live revision of the release at ``path``, if one is; with the settings ``app``, if
        they are given."""
        found = (r for r in self.live() if r.path == path)
        return next((r for r in found if app is None or r.app.is_proved_as(app)), None)

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

    def keep(self, revision: Revision) -> str:
        """Keep on disk what ``revision`` was proved with, for later starts and rollbacks; returns
        the name for ``confirmed``. Raises OSError, ConfigError."""
        found = confirmed.read(self._places.confirmed)
        named = (found.settings, found.previous_settings) if found is not None else ()
        kept = proved.of(revision.path, revision.app)
        proved.write(self._places.proved, kept, named)
        return kept.name

    def kept(self, name: str) -> App:
        """What a release was proved with. Raises ConfigError."""
        return proved.read(self._places.proved, name)

    def changes(self, revision: Revision) -> dict[str, list[str]]:
        """How the environment of ``revision`` differs from that of the current one, by names."""
        return environment.changes(self.current.app if self.current else None, revision.app)

    def checks(self) -> list[dict[str, object]]:
        """For `taskctl doctor`: the names of the app's variables, and who has others."""
        if self.current is None:
            return []
        names = sorted(self.current.app.environment or ())
        told = [f"{self.current.name} has {_some(names) or 'none'} of [app] env and env_file"]
        for other in self.live():
            changes = environment.changes(self.current.app, other.app).values()
            if differing := sorted({name for names in changes for name in names}):
                told.append(f"{other.name} ({other.state.value}) differs in {_some(differing)}")
        return [{"name": "environment", "ok": True, "text": "; ".join(told)}]

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


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def keep_record(revision: Revision) -> None:
    """Have the zygote of a live revision keep its record on disk, so that the next master finds it
    if this one dies. A revision that is not live leaves no record."""
    revision.zygote.tell({"type": "keep"})

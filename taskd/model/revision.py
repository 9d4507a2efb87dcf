"""A revision's life, as the master sees it.

Pure. A revision is a release that the master knows: its real path and the hash of its files. It
lives until its last worker is gone and no task waits for it.

    start ─→ starting ─manifest→ proven ─confirm→ current ─superseded→ draining ─empty→ gone
                 └───── broken ─────┴──────→ rejected          ↑______promoted_____|
"""

from __future__ import annotations

from enum import Enum


class RevisionState(str, Enum):
    """Where a revision is in its life; the value is what ``taskctl revisions`` shows."""

    STARTING = "starting"  # its zygote imports the app
    PROVEN = "proven"  # its manifest is here; it serves nothing yet
    CURRENT = "current"  # fresh tasks go here
    DRAINING = "draining"  # finishes what it runs
    REJECTED = "rejected"  # did not prove itself
    GONE = "gone"


class RevisionEvent(str, Enum):
    """What happens to a revision."""

    MANIFEST = "manifest"
    BROKEN = "broken"
    CONFIRM = "confirm"
    SUPERSEDE = "supersede"
    EMPTY = "empty"


REVISIONS: dict[tuple[RevisionState, RevisionEvent], RevisionState] = {
    (RevisionState.STARTING, RevisionEvent.MANIFEST): RevisionState.PROVEN,
    (RevisionState.STARTING, RevisionEvent.BROKEN): RevisionState.REJECTED,
    (RevisionState.PROVEN, RevisionEvent.BROKEN): RevisionState.REJECTED,
    (RevisionState.PROVEN, RevisionEvent.CONFIRM): RevisionState.CURRENT,
    (RevisionState.CURRENT, RevisionEvent.CONFIRM): RevisionState.CURRENT,
    (RevisionState.DRAINING, RevisionEvent.CONFIRM): RevisionState.CURRENT,
    (RevisionState.CURRENT, RevisionEvent.SUPERSEDE): RevisionState.DRAINING,
    (RevisionState.DRAINING, RevisionEvent.EMPTY): RevisionState.GONE,
    (RevisionState.REJECTED, RevisionEvent.EMPTY): RevisionState.GONE,
}

LIVE = frozenset({RevisionState.CURRENT, RevisionState.DRAINING})
"""States in which a revision runs tasks."""

"""Which revision runs a task: the rule of where an attempt goes.

Pure. To the current revision if it knows the name at a version that can read the saved state,
else to the newest live one that does, else nowhere: the task is held, and says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from taskd.record import Record

if TYPE_CHECKING:
    from typing import Protocol

    class Revision(Protocol):
        """A live revision: its name, and the tasks of its manifest."""

        name: str
        tasks: dict[str, Any]


R = TypeVar("R", bound="Revision")


class Held(Record):
    """No live revision can run it."""

    reason: str


def can_run(manifest: Mapping[str, Any], name: str, saved_version: int | None) -> str | None:
    """None if a revision with those tasks can run the task, else why it cannot."""
    entry = manifest.get(name)
    if entry is None:
        return f"has no task {name!r}"
    if saved_version is not None and saved_version not in entry["reads"]:
        has = entry["version"]
        return f"has {name!r} at version {has}, which cannot read state saved by {saved_version}"
    return None


def route(live: Iterable[R], name: str, saved_version: int | None) -> R | Held:
    """The first of the ``live`` revisions that can run the task; the current one comes first."""
    reasons = []
    for revision in live:
        why = can_run(revision.tasks, name, saved_version)
        if why is None:
            return revision
        reasons.append(f"{revision.name} {why}")
    return Held("no live revision can run it: " + "; ".join(reasons))

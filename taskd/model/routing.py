"""Which revision runs a task: the rule of where an attempt goes, and the versions behind it.

Pure. To the current revision if it knows the name at a version that can read the saved state,
else to the newest live one that does, else nowhere: the task is held, and says why.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any, TypeVar

from taskd.record import Protocol, Record


class Revision(Protocol):
    """A live revision: its name, and the tasks of its manifest."""

    name: str
    tasks: dict[str, Any]


R = TypeVar("R", bound=Revision)


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


def readable(version: int, migrations: Container[int]) -> list[int]:
    """``version``, and every earlier one from which an unbroken chain of migrations leads to it.

    ``migrations``: the versions whose state a migration takes to the next one.
    """
    lowest = version
    while lowest - 1 in migrations:
        lowest -= 1
    return list(range(lowest, version + 1))


def is_older(taskd: str, than: str) -> bool:
    """Whether version ``taskd`` of taskd came before ``than``; False if that cannot be told."""
    parts, others = _numbers(taskd), _numbers(than)
    return bool(parts and others) and parts < others


def _numbers(version: str) -> list[int]:
    """The whole numbers at its beginning: of 0.2.1rc1 (or 0.2.dev3) 0 and 2."""
    found = []
    for part in version.split("."):
        if not (part.isascii() and part.isdigit()):
            break
        found.append(int(part))
    return found

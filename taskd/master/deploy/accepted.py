"""What a new revision refuses, and what serves now could not go on with either.

In the master. It was accepted when what serves now was deployed (``--allow-held``): a later deploy
makes nothing worse for it, and is not refused for its sake.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from taskd.model.binding import bind, names_in
from taskd.model.plan import Item
from taskd.revision import confirmed

if TYPE_CHECKING:
    from taskd.master.fleet.revision import Revision
    from taskd.master.master import Master


def marked(
    master: Master, target: Revision, items: Sequence[Item], refused: Mapping[int, str]
) -> list[Item]:
    """``items``, with those among the refused ones marked that were accepted before."""
    if not refused:
        return list(items)
    found = confirmed.read(master.places.confirmed)
    tasks = frozenset(found.accepted if found is not None else ())
    return [
        item._replace(accepted=ref in refused and _is_accepted(master, target, item, tasks))
        for ref, item in enumerate(items)
    ]


def _is_accepted(master: Master, target: Revision, item: Item, tasks: frozenset[int]) -> bool:
    current = master.revisions.current
    assert current is not None
    if item.task is not None:
        worker = master.attempts.worker_of(item.task)
        if worker is not None and worker.revision is current:
            return False
        return target is current or item.task in tasks or item.name not in current.tasks
    if target is current or (entry := current.tasks.get(item.name)) is None:
        return True
    if item.has_saved:
        return item.version not in entry["reads"] or item.example in tasks
    return item.shape is not None and bind(entry, names_in(item.shape)) is not None

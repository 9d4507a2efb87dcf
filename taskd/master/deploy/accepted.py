"""What a new revision refuses, and what serves now could not go on with either.

It was accepted when what serves now was deployed (``--allow-held``): a later deploy makes nothing
worse for it, and is not refused for its sake.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from taskd.master.attempts import Attempts
from taskd.master.fleet import Revision
from taskd.model.binding import bind, names_in
from taskd.model.plan import Item


def marked(
    items: Sequence[Item],
    refused: Collection[int],
    before: Collection[int],
    current: Revision,
    target: Revision,
    attempts: Attempts,
) -> list[Item]:
    """``items``, with those among the ``refused`` ones marked that were accepted before.

    ``before``: the tasks that ``current`` was deployed without.
    """

    def is_accepted(item: Item) -> bool:
        if item.task is not None:
            worker = attempts.worker_of(item.task)
            if worker is not None and worker.revision is current:
                return False
            return target is current or item.task in before or item.name not in current.tasks
        if target is current or (entry := current.tasks.get(item.name)) is None:
            return True
        if item.has_saved:
            return item.version not in entry["reads"] or item.example in before
        return item.shape is not None and bind(entry, names_in(item.shape)) is not None

    return [
        item._replace(accepted=ref in refused and is_accepted(item))
        for ref, item in enumerate(items)
    ]

"""After a deploy: idle workers of older revisions go, and tasks that move are asked to leave."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from taskd.model.plan import PINNED
from taskd.model.routing import can_run
from taskd.model.task import OnDeploy

if TYPE_CHECKING:
    from taskd.master.fleet.revision import Revision
    from taskd.master.fleet.running import Running
    from taskd.master.master import Master


def let_old_ones_leave(master: Master, target: Revision, unfit: Collection[int]) -> None:
    """``unfit``: the tasks that the new revision could not take when it was asked; they are left
    where they are."""
    master.workers.retire_idle(keep=target)
    stay = frozenset(unfit)
    for worker in master.workers:
        running = worker.running
        if running is None or worker.revision is target or running.attempt == 0:
            continue
        if running.task not in stay and _moves(master, running, worker.revision, target):
            master.attempts.ask(running.task, "leave", f"deploy of {target.name}")


def _moves(master: Master, running: Running, source: Revision, target: Revision) -> bool:
    if running.on_deploy != OnDeploy.CHECKPOINT.value:
        return False
    row = master.reader.task(running.task)
    if row is None or row.budgets.interruptions >= PINNED:
        return False
    entry = source.tasks.get(running.name)  # none: of a release that is gone, and found after it
    return entry is not None and can_run(target.tasks, running.name, entry["version"]) is None

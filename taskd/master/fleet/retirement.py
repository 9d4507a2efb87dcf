"""When a revision has served its time: no worker of it lives and nothing waits for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskd import log
from taskd.master.fleet.revision import Revision
from taskd.model.revision import RevisionEvent, RevisionState
from taskd.model.routing import Held, route

if TYPE_CHECKING:
    from taskd.master.master import Master


def gone(master: Master) -> list[Revision]:
    """Retire the zygotes that nothing needs; those revisions of which nothing is left."""
    for revision in list(master.revisions):
        if master.workers.any_of(revision) or master.revisions.is_wanted(revision):
            continue
        if revision.state is RevisionState.DRAINING and not _is_needed(master, revision):
            _retire(master, revision)
        elif revision.state is RevisionState.REJECTED:
            revision.take(RevisionEvent.EMPTY)
    return [r for r in master.revisions if r.state is RevisionState.GONE and r.pid is None]


def _is_needed(master: Master, revision: Revision) -> bool:
    """Whether something waits, or is on its way back to the store, that runs nowhere else."""
    names = {attempt.name for attempt in master.attempts.all()}
    waiting = set(master.reader.waiting())
    others = [(r, r.name, r.tasks) for r in master.revisions.live() if r is not revision]
    return any(
        name in revision.tasks and isinstance(route(others, name, version), Held)
        for name, version in waiting | {(name, None) for name in names}
    )


def _retire(master: Master, revision: Revision) -> None:
    if revision.channel is not None:
        revision.channel.send({"type": "retire"})
        revision.zygote_retired = True
    else:
        master.kill(revision.pid)  # it is just starting: it knows of nothing
    revision.take(RevisionEvent.EMPTY)
    log.info("revision drained", revision=revision.name)
    master.dispatch.kick()  # what waits for this looks then

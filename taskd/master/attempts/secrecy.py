"""Who is given a task that holds a Secret: only a revision whose taskd can read one.

Runs in the master, which does not decode what users save but for this, and only where a revision of
an older taskd is concerned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskd.errors import ProtocolError
from taskd.model.routing import Held, route
from taskd.protocol import data, secret
from taskd.protocol.saved import Saved

if TYPE_CHECKING:
    from taskd.master.fleet.revision import Revision
    from taskd.master.master import Master
    from taskd.store.api import Row


def holds(args: bytes, saved: bytes | None) -> bool:
    """Whether there is a Secret in a task's arguments or in what it has saved."""
    if secret.MARK not in args and secret.MARK not in (saved or b""):
        return False
    try:
        kept = None if saved is None else Saved.decode(saved)
        values = [data.decode(args)]
    except ProtocolError:
        return True  # nobody can tell: it looks like one
    if kept is not None:
        cursors = [mark.cursor for mark in kept.cursors.values()]
        values += [kept.args, kept.state, kept.steps, cursors]
    return bool(secret.found_in(values))


def cannot_read(revision: Revision) -> str:
    return (
        f"it holds a Secret, which taskd {revision.taskd or '0.1'} of {revision.name} cannot read"
    )


def reader_of(master: Master, row: Row, chosen: Revision) -> Revision | Held:
    """``chosen``, or, if the task holds a Secret that this one cannot read, another that can."""
    if chosen.version >= secret.SINCE:
        return chosen
    if not holds(master.reader.args(row.id), master.reader.saved(row.id)):
        return chosen
    able = [r for r in master.attempts.takers(row.id) if r.version >= secret.SINCE]
    found = route([(r, r.name, r.tasks) for r in able], row.name, row.saved_version)
    if isinstance(found, Held):
        return Held(f"no live revision can run it: {cannot_read(chosen)}")
    return found

"""The store's contract about schedules: a part of ``api``, whose rules hold here as well.

A schedule's *mark* is the newest slot that is decided, or when the schedule came into being. The
facts are the mark and, for each slot that was run or skipped, a row; both are written in the
transaction that submits. When the next slot is, nobody stores.
"""

from __future__ import annotations

from taskd.model.schedule import Skip
from taskd.record import Record
from taskd.store.submit_api import Submit

DROPPED = 30 * 86400.0
"""Seconds for which a schedule that was dropped is remembered."""


class Definition(Record):
    """A schedule as a revision has it. ``timing``: what its slots follow from; ``kept``: the rest,
    opaque here."""

    name: str
    timing: str
    kept: bytes


class TakeUp(Record):
    """These are the schedules from now on: those of a revision that was confirmed, or of a start.

    Result: a tuple of (name, "new", "changed", "back" or "dropped"), of those that are not as they
    were. One that is new, or has another timing, has its first slot behind the store's clock. One
    that is not among them is dropped: nothing of it runs any more, but its mark and its pause stay
    for DROPPED seconds, for when it comes back.
    """

    schedules: tuple[Definition, ...]


class Slot(Record):
    """A slot that is to run, and its task."""

    slot: float
    task: Submit


class Due(Record):
    """All slots of a schedule from behind its mark, which ``was`` that, up to the new ``mark`` are
    decided: ``runs`` are run, ``skips`` are not.

    Result: the list of the ids of the tasks that were submitted; or None, and nothing is changed,
    if the mark is another one, if the schedule is not there, dropped or paused, or if everything
    is paused: whoever decided knows too little. Each slot is submitted once ever, together with
    that fact and the mark; a slot of which there is such a fact is passed over.

    ``overlap``: what becomes of a slot if an earlier task of the schedule (for a slot or by RunNow)
    waits or runs: "run": it runs beside it; "skip": it is skipped; "queue": it is *pending*
    (one at most, and none while a task waits that has not begun; later ones are skipped). A
    pending slot is among the ``runs`` of another Due once no such task is left, whose ``mark`` is
    as it was. A task that is refused by its key is skipped, with the reason. A held task is not in
    the way.

    Facts of slots before ``keep`` are removed, a few at a time.
    """

    schedule: str
    was: float
    mark: float
    runs: tuple[Slot, ...]
    skips: tuple[Skip, ...]
    overlap: str
    keep: float
    at: float


class RunNow(Record):
    """A task of a schedule beside its slots, which stay as they are. Result: Submitted. Refused if
    there is no such schedule; and if a task of it waits or runs, unless it is ``forced``."""

    schedule: str
    task: Submit
    forced: bool


class PauseSchedule(Record):
    """None of its slots is run or recorded until ResumeSchedule. Result: whether it was not
    paused. Refused if there is no such schedule."""

    schedule: str
    by: int
    at: float


class ResumeSchedule(Record):
    """Its next slot is the first behind the store's clock; or, with ``catch_up``, what was missed
    in the pause is decided by that policy. Result: whether it was paused. Refused if there is no
    such schedule."""

    schedule: str
    catch_up: str | None = None

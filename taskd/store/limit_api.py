"""The store's contract about limits: a part of ``api``, whose rules hold here as well.

A *key* names what a limit counts: ``customer:7`` or ``api`` (a task carries such keys from its
submission on), ``=task:NAME`` (every task of that name has it) and ``=queue:NAME`` (every task of
that queue). A ``Limit`` has the numbers of all keys of one name: what stands left of the first
colon, or the whole key if that begins with ``=``. A key whose name has no Limit limits nothing.

* A task *holds* its keys while it runs, and from the moment that it moves (see ``Settle``) until it
  runs again or is no longer queued. No Take begins a task of which a key is held by ``concurrency``
  others: never more, whatever else happens. One that moves goes on without asking.
* A rate counts first starts: of the task, and of each try after one that failed or that was retried
  by hand. ``every`` seconds one such start is let go, and up to ``burst`` at once after a pause.
* Of a task that cannot begin for a key it carries, Block is told; from then on it is *blocked*: it
  is queued, but not ready. What frees the key makes the next one ready in the same transaction:
  for each queue and name the best of those that wait, in the order of claiming. A task that becomes
  queued while its key is full, or behind better ones that are blocked, is blocked at once.
* Nobody is blocked while nothing frees its key: the end of a holder does, a Wake once the rate lets
  another start, and Release, which whoever changes numbers, or opens the store, has to apply.
"""

from __future__ import annotations

from taskd.record import Record
from taskd.store.values import Limit

LIMITS = 1000
"""Limits that may be declared at a time."""

TASK, QUEUE = "=task:", "=queue:"
"""How the keys begin that no task carries itself."""


class TakeUpLimits(Record):
    """These are the limits from now on. One of before that is not among them goes on, ``dropped``,
    but for those of queues and for those named in ``ended``. Release has to follow.

    Result: a tuple of (name, "new", "changed", "back", "dropped" or "ended"), of those that are not
    as they were. Refused if there are more than LIMITS.
    """

    limits: tuple[Limit, ...]
    ended: tuple[str, ...]


class Release(Record):
    """Of the keys behind ``after`` for which tasks are blocked, by name, look at the first
    ``limit``: what may begin now is ready. Result: the last key that was looked at, to go on
    behind it; None: that was all."""

    after: str | None
    limit: int


class Block(Record):
    """Those of these tasks that are ready, and cannot begin for a key that they carry, are blocked.
    Result: the list of their ids. No event is written, since no state changes."""

    tasks: tuple[int, ...]

"""Tasks that are cancelled if they have not started by a certain time.

Runs in the writer thread. The index ``tasks_expiring`` has those that have not started, by that
time: where none of them is late, which is nearly always, a claim pays one look-up. Late ones are
cancelled in slices (``CancelExpired``); until that is done, a claim passes over those that it
meets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from taskd.model.duration import in_words
from taskd.model.task import Change
from taskd.store import sql
from taskd.store.api import Applied, CancelExpired
from taskd.store.meter import Fetch
from taskd.store.queries import Candidate
from taskd.store.transaction import Transaction

LOOKED_AT = 1000
"""Tasks that one claim looks at, at most, while some are late."""

_IS_LATE = "select 1 from tasks where id = ? and attempt = 0 and expires <= store_clock()"


def are_some_late(fetch: Fetch) -> bool:
    return bool(fetch(sql.LAPSED, 1))


def in_time(fetch: Fetch, candidates: Iterable[Candidate]) -> Iterator[Candidate]:
    """Those that may still start, of the first LOOKED_AT."""
    for each in islice(candidates, LOOKED_AT):
        if not fetch(_IS_LATE, each.task):
            yield each


def cancel_expired(tx: Transaction, operation: CancelExpired) -> Applied:
    now = tx.clock()
    late = [number for (number,) in tx.fetch(sql.LAPSED, operation.limit)]
    for number in late:
        ((seconds,),) = tx.fetch(sql.EXPIRES_IN, number)
        reason = f"expired: not started within {in_words(seconds)}"
        state = tx.change(tx.found(number), Change.CANCEL, now, reason)
        tx.run(sql.EXPIRE, state.value, now, reason, number)
    return Applied(late, None)

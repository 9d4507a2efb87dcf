"""How many tasks of a queue may run for now, as an operator said: beside what taskd.toml says.

Runs in the writer thread, in the open transaction of a batch; what is read is read by the loop.
"""

from __future__ import annotations

from taskd.errors import Refused
from taskd.store.concurrency_api import MOST, Said, SetConcurrency
from taskd.store.meter import Fetch
from taskd.store.transaction import Transaction

ENDS = "select min(until) - store_clock() from concurrency having min(until) is not null"
"""In how many seconds the first one is over."""

_ALL = "select queue, tasks, by, at, until, why from concurrency order by queue"
_COUNT = "select count(*) from concurrency where queue <> ?"
_PUT = (
    "insert or replace into concurrency (queue, tasks, by, at, until, why)"
    " values (?, ?, ?, ?, ?, ?)"
)
_DROP = "delete from concurrency where queue = ?"
_EXPIRE = "delete from concurrency where until <= ?"
_SHIFT = "update concurrency set until = until + ?"


def put(tx: Transaction, new: SetConcurrency) -> bool:
    now = tx.clock()
    expire(tx, now)
    if new.tasks is not None and tx.run(_COUNT, new.queue).fetchone()[0] >= MOST:
        raise Refused(f"the concurrency of {MOST} queues is set for now already; reset some")
    was = bool(tx.run(_DROP, new.queue).rowcount)
    if new.tasks is not None:
        until = None if new.seconds is None else now + new.seconds
        tx.run(_PUT, new.queue, new.tasks, new.by, new.at, until, new.why)
    return was


def expire(tx: Transaction, now: float) -> None:
    tx.run(_EXPIRE, now)


def shift(tx: Transaction, seconds: float) -> None:
    tx.run(_SHIFT, seconds)


def every(fetch: Fetch) -> list[Said]:
    """What is said, by queue; what is over just now may be among it."""
    return [Said(*each) for each in fetch(_ALL)]

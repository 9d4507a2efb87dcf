"""What is paused, and which ready tasks a pause leaves: those that ran and move.

Runs in the loop (to know which workers are wanted) and in the writer thread (to take tasks). A
pause changes no task: a queue with a million tasks is paused by one row. The tasks that move are
few, and have an index of their own (``tasks_moving``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from taskd.errors import Refused
from taskd.record import Record
from taskd.store import schema
from taskd.store.api import PAUSES, Pause
from taskd.store.meter import Fetch
from taskd.store.values import Kind, Paused, Scope

_ALL = "select queue, name, by, at, until, why from pauses order by queue, name"
_IN_FORCE = "select queue, name from pauses where until is null or until > store_clock()"
_COUNT = "select count(*) from pauses where not (queue = ? and name = ?)"
_PUT = "insert or replace into pauses (queue, name, by, at, until, why) values (?, ?, ?, ?, ?, ?)"
_DROP = "delete from pauses where queue = ? and name = ?"
_EXPIRE = "delete from pauses where until <= ?"
_ALL_OVER = "select until from pauses where queue = '' and name = '' and until <= ?"
_NO_SLOTS = "update schedules set mark = max(mark, ?)"
"""While everything was paused, no schedule had a slot."""

_MOVING = (
    "select id, name, saved_version from tasks indexed by tasks_moving"
    f" where queue = ? and {schema.MOVING} and moves = attempt"
)

Run = Callable[..., Any]
"""Runs a statement with its values; ``rowcount`` is how many rows it changed."""


class InForce(Record):
    """Of one moment: is all paused, and which queues and names are."""

    is_all: bool
    queues: frozenset[str]
    names: frozenset[str]

    def stops(self, queue: str, name: str) -> bool:
        return self.is_all or queue in self.queues or name in self.names


NOTHING = InForce(False, frozenset(), frozenset())


def in_force(fetch: Fetch) -> InForce:
    found = fetch(_IN_FORCE)
    if not found:
        return NOTHING
    return InForce(
        ("", "") in found,
        frozenset(queue for queue, _ in found if queue),
        frozenset(name for _, name in found if name),
    )


def left(
    fetch: Fetch,
    paused: InForce,
    queue: str,
    routes: Mapping[Kind, int],
    alone: Mapping[int, int],
) -> tuple[Mapping[Kind, int], Mapping[int, int]]:
    """What is left of the ``routes`` and of the single tasks of ``queue`` (see ``api.Take``). A
    task that moves is a single one, since its kind has no route."""
    if paused is NOTHING:
        return routes, alone
    open_ = {kind: to for kind, to in routes.items() if not paused.stops(queue, kind.name)}
    singles = {}
    for task, name, saved_version in fetch(_MOVING, queue):
        to = alone.get(task, routes.get(Kind(name, saved_version)))
        if to is not None and paused.stops(queue, name):
            singles[task] = to
    for task, to in alone.items():
        if task not in singles and not paused.stops(queue, _name(fetch, task)):
            singles[task] = to
    return open_, singles


def _name(fetch: Fetch, task: int) -> str:
    found = fetch("select name from tasks where id = ?", task) if schema.is_id(task) else []
    return str(found[0][0]) if found else ""


def every(fetch: Fetch) -> list[Paused]:
    return [Paused(Scope(queue, name), *rest) for queue, name, *rest in fetch(_ALL)]


def pause(run: Run, operation: Pause, now: float) -> bool:
    """Whether the scope was not paused. Raises Refused."""
    expire(run, now)
    if run(_COUNT, *operation.scope).fetchone()[0] >= PAUSES:
        raise Refused(f"{PAUSES} queues and tasks are paused already; resume some")
    was = resume(run, operation.scope, now)
    seconds = operation.seconds
    until = None if seconds is None else now + seconds
    run(_PUT, *operation.scope, operation.by, operation.at, until, operation.why)
    return not was


def resume(run: Run, scope: Scope, now: float) -> bool:
    """Whether it was paused."""
    was = bool(run(_DROP, *scope).rowcount)
    if was and scope == Scope():
        run(_NO_SLOTS, now)
    return was


def expire(run: Run, now: float) -> None:
    """Forget the pauses that are over."""
    for (until,) in run(_ALL_OVER, now).fetchall():
        run(_NO_SLOTS, until)
    run(_EXPIRE, now)


def shift(run: Run, seconds: float) -> None:
    """All that end by themselves do so that much later."""
    run("update pauses set until = until + ?", seconds)

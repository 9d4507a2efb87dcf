"""How the SQLite store answers each query of ``queries``: by index look-ups, in parts.

Runs in the master's loop. A part ends once its ``Meter`` is used up. INDEXED BY makes a statement
fail, instead of scanning, where an index is missing. All statements of a part see the same commit
(see ``reader``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from taskd.model.task import State
from taskd.store import (
    attempts,
    concurrency,
    expiring,
    limiting,
    pausing,
    picking,
    scheduling,
    schema,
)
from taskd.store.event_answers import events
from taskd.store.meter import AT_ONCE, ROW, WORK, Fetch, Meter
from taskd.store.queries import (
    AttemptsOf,
    Concurrencies,
    Counts,
    Events,
    Expired,
    Glances,
    LimitsInForce,
    Listed,
    NextDue,
    Part,
    Pauses,
    Purged,
    QueueCounts,
    Ready,
    Removed,
    Rows,
    RunningRows,
    Schedules,
    Shown,
    Size,
    Startable,
    Stored,
    StoredData,
    StoreSize,
    WaitingGroups,
    WhyBlocked,
)
from taskd.store.row_answers import glances, rows, running_rows, value_of
from taskd.store.told_answers import listed, shown
from taskd.store.values import Group

_COUNTS = (
    "select state, queue, tasks from counts indexed by counts_not_empty"
    f" where {schema.NOT_EMPTY} and (state, queue) > (?, ?) order by state, queue limit ?"
)
_GROUPS = (
    "select g.id, g.name, g.version, g.shape, g.waiting,"
    " (select t.id from tasks t indexed by tasks_waiting"
    f" where t.group_id = g.id and t.{schema.WAITING} order by t.id limit 1)"
    " from groups_waiting g indexed by groups_not_empty"
    " where g.waiting > 0 and g.id > ? order by g.id limit ?"
)
_GROUP_NAMES = (
    "select id, name from groups_waiting indexed by groups_not_empty"
    " where waiting > 0 and id >= ? order by id limit ?"
)
_WAIT_IN_GROUP = (
    "select id, state from tasks indexed by tasks_waiting"
    f" where group_id = ? and {schema.WAITING} and id > ? order by id limit ?"
)
_NEXT_DUE = (
    "select run_at - store_clock() from tasks indexed by tasks_scheduled"
    f" where {schema.SCHEDULED} and not {schema.FOR_OTHERS} order by run_at limit 1"
)
_NEXT_LAPSE = (
    "select expires - store_clock() from tasks indexed by tasks_expiring"
    f" where {schema.EXPIRING} order by expires limit 1"
)
_TO_TELL = "select 0.0 where exists (select 1 from ends) or exists (select 1 from downs)"
_PAUSE_ENDS = "select min(until) - store_clock() from pauses having min(until) is not null"

_INCREMENTAL = 2
"""The mode of auto_vacuum that ``connection`` sets."""


# ── counts and groups ────────────────────────────────────────────────────────────────────────────


def _queue_counts(fetch: Fetch, query: QueueCounts) -> Part[Counts]:
    behind, so_far = query.place or (("", ""), Counts({}, {}))
    totals, queues = dict(so_far.totals), dict(so_far.queues)
    left = query.most - len(queues.keys() - query.names)
    found = fetch(_COUNTS, *behind, WORK)
    for value, queue, tasks in found:
        state = State(value)
        totals[state] = totals.get(state, 0) + tasks
        is_other = queue not in query.names
        if is_other and state not in (State.QUEUED, State.RUNNING):
            continue
        if queue in queues:
            queues[queue] = queues[queue] | {state: tasks}
        elif not is_other or left > 0:
            queues[queue] = {state: tasks}
            left -= is_other
    counts = Counts(totals, queues)
    if len(found) < WORK:
        return Part([counts], None)
    return Part([], query._replace(place=(found[-1][:2], counts)))


def _waiting_groups(fetch: Fetch, query: WaitingGroups) -> Part[Group]:
    most = WORK // ROW
    found = fetch(_GROUPS, query.place or 0, most)
    groups = [Group(*each[1:]) for each in found]
    return Part(groups, WaitingGroups(found[-1][0]) if len(found) == most else None)


def _startable(fetch: Fetch, query: Startable) -> Part[str]:
    """``place``: the group to go on in, and its last task that was looked at."""
    first, after = query.place or (0, 0)
    found: list[str] = []
    meter = Meter()
    groups = fetch(_GROUP_NAMES, first, AT_ONCE)
    for group, name in groups:
        is_first = group == first
        first, after = group, after if is_first else 0
        while name in query.names and name not in found:
            if meter.is_used_up:
                return Part(found, query._replace(place=(first, after)))
            tasks = fetch(_WAIT_IN_GROUP, group, after, AT_ONCE)
            meter.read(ROW + len(tasks))
            if any(state != State.HELD.value for _, state in tasks):
                found.append(name)
            if len(tasks) < AT_ONCE:
                break
            after = tasks[-1][0]
    if len(groups) < AT_ONCE:
        return Part(found, None)
    return Part(found, query._replace(place=(groups[-1][0] + 1, 0)))


# ── values ───────────────────────────────────────────────────────────────────────────────────────


def _stored(fetch: Fetch, query: StoredData) -> Part[Stored]:
    found: list[Stored] = []
    meter = Meter()
    for index, task in enumerate(query.tasks):
        if meter.is_used_up:
            return Part(found, StoredData(query.tasks[index:]))
        args, saved = (value_of(fetch, table, task) for table in ("arguments", "saved"))
        meter.read(2 * ROW, args, saved)
        if args is not None:
            found.append(Stored(task, args, saved))
    return Part(found, None)


def _next_due(fetch: Fetch, _: NextDue) -> float | None:
    found = (
        fetch(_NEXT_DUE)
        + fetch(_NEXT_LAPSE)
        + fetch(_PAUSE_ENDS)
        + fetch(concurrency.ENDS)
        + fetch(_TO_TELL)
    )
    found += limiting.waits(fetch)
    due_in = [seconds for (seconds,) in found]
    return max(0.0, min(due_in)) if due_in else None


def _store_size(fetch: Fetch, _: StoreSize) -> Size:
    names = ("page_size", "page_count", "freelist_count", "auto_vacuum")
    page, pages, free, mode = (fetch(f"pragma {name}")[0][0] for name in names)
    return Size(page * pages, page * free, mode == _INCREMENTAL)


ANSWERS: dict[type, Callable[[Fetch, Any], Any]] = {
    Rows: rows,
    Glances: glances,
    RunningRows: running_rows,
    Shown: shown,
    Listed: listed,
    Events: events,
    QueueCounts: _queue_counts,
    WaitingGroups: _waiting_groups,
    Startable: _startable,
    Ready: picking.ready,
    StoredData: _stored,
    AttemptsOf: attempts.attempts,
    Expired: expiring.expired,
    Purged: expiring.purged,
    Removed: expiring.removed,
    StoreSize: _store_size,
    NextDue: _next_due,
    Concurrencies: lambda fetch, _: concurrency.every(fetch),
    LimitsInForce: lambda fetch, _: list(limiting.in_force(fetch).values()),
    WhyBlocked: limiting.why_blocked,
    Pauses: lambda fetch, _: pausing.every(fetch),
    Schedules: lambda fetch, _: scheduling.every(fetch),
}

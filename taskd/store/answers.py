"""How the SQLite store answers each query of ``queries``: by index look-ups, in parts.

Runs in the master's loop. A part ends once its ``Meter`` is used up. INDEXED BY makes a statement
fail, instead of scanning, where an index is missing. All statements of a part see the same commit
(see ``reader``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from taskd.model.task import SETTLED, State
from taskd.record import Record
from taskd.store import expiring, pausing, picking, schema
from taskd.store.event_answers import events
from taskd.store.meter import AT_ONCE, FEW, ROW, WORK, Fetch, Meter
from taskd.store.queries import (
    Counts,
    Events,
    Expired,
    Filter,
    Glance,
    Glances,
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
    Shown,
    Size,
    Startable,
    Stored,
    StoredData,
    StoreSize,
    Told,
    WaitingGroups,
)
from taskd.store.rows import COLUMNS, row_of
from taskd.store.values import Group, Row

_TASKS = f"select {COLUMNS} from tasks where id in (select value from json_each(?))"
_GLANCES = "select id, owner, queue, state from tasks where id in (select value from json_each(?))"
_RUNNING = (
    "select id from tasks indexed by tasks_state"
    " where state = 'running' and id > ? order by id limit ?"
)
_HISTORY = (
    "select number, state, at from events indexed by events_task"
    " where task = ? and number > ? order by number limit ?"
)
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
    f" where {schema.SCHEDULED} order by run_at limit 1"
)
_PAUSE_ENDS = "select min(until) - store_clock() from pauses having min(until) is not null"

_INCREMENTAL = 2
"""The mode of auto_vacuum that ``connection`` sets."""

_SETTLED = frozenset(state.value for state in SETTLED)
_ONE_RUN = frozenset({State.RUNNING, State.SUCCEEDED, State.FAILED})
"""States in which a task with one attempt has run ever since, or until its end."""


# ── rows ─────────────────────────────────────────────────────────────────────────────────────────


def _numbers(tasks: Sequence[int]) -> str:
    """The ids as JSON, without those that no task can have."""
    return str([task for task in tasks if schema.is_id(task)])


def _rows_of(fetch: Fetch, tasks: Sequence[int], meter: Meter) -> Iterator[tuple[int, Row | None]]:
    """The row of each of the tasks (None: it is not known) with its place in ``tasks``, until the
    meter is used up: of one task at least."""
    for start in range(0, len(tasks), FEW):
        some = tasks[start : start + FEW]
        found = {row[0]: row for row in fetch(_TASKS, _numbers(some))}
        meter.read(ROW)
        for index, task in enumerate(some, start):
            row = found.get(task)
            if row is not None:
                meter.read(ROW, *row[19:22])
            yield index, None if row is None else row_of(row)
            if meter.is_used_up:
                return


def _rows(fetch: Fetch, query: Rows) -> Part[Row]:
    rows: list[Row] = []
    last = -1
    for index, row in _rows_of(fetch, query.tasks, meter := Meter()):
        last = index
        if row is not None:
            rows.append(row)
    rest = query.tasks[last + 1 :] if meter.is_used_up else ()
    return Part(rows, Rows(rest) if rest else None)


def _glances(fetch: Fetch, query: Glances) -> Part[Glance]:
    some, rest = query.tasks[:WORK], query.tasks[WORK:]
    rows = {row[0]: row for row in fetch(_GLANCES, _numbers(some))}
    known = [rows[task] for task in some if task in rows]
    found = [Glance._make((*row[:3], State(row[3]))) for row in known]
    return Part(found, Glances(rest) if rest else None)


def _running_rows(fetch: Fetch, query: RunningRows) -> Part[Row]:
    ids = [task for (task,) in fetch(_RUNNING, query.after, AT_ONCE)]
    rows: list[Row] = []
    last = -1
    for index, row in _rows_of(fetch, ids, meter := Meter()):
        last = index
        if row is not None and row.state is State.RUNNING:
            rows.append(row)
    if meter.is_used_up:
        return Part(rows, RunningRows(ids[last]))
    return Part(rows, RunningRows(ids[-1]) if len(ids) == AT_ONCE else None)


# ── tasks as they are told ───────────────────────────────────────────────────────────────────────


class _Ran(Record):
    """How far the events of ``task`` were added up: to ``number``. ``since``: the start of the
    attempt that runs there."""

    task: int
    number: int = 0
    seconds: float = 0.0
    since: float | None = None


def _add_up(fetch: Fetch, ran: _Ran, meter: Meter) -> tuple[_Ran, bool]:
    """Go on adding up, by one statement at least; whether that was all."""
    task, number, seconds, since = ran
    while True:
        events = fetch(_HISTORY, task, number, AT_ONCE)
        for each, state, at in events:
            number = each
            seconds += 0.0 if since is None else max(0.0, at - since)
            since = at if state == State.RUNNING.value else None
        meter.read(ROW + len(events))
        is_all = len(events) < AT_ONCE
        if is_all or meter.is_used_up:
            return _Ran(task, number, seconds, since), is_all


class _Telling:
    """Makes a Told of one row after another. ``place``: where a part before has stopped within a
    row; ``stopped``: where this one has, or None."""

    def __init__(self, fetch: Fetch, now: float, place: _Ran | None) -> None:
        self._fetch = fetch
        self._now = now
        self._place = place
        self.meter = Meter()
        self.stopped: _Ran | None = None

    def of(self, row: Row, with_result: bool) -> Told | None:
        """None if the part is used up before this row is."""
        ran = None
        if row.started is not None:
            ran = max(0.0, (row.ended or self._now) - row.started)
            if row.attempt != 1 or row.state not in _ONE_RUN:  # it slept or waited in between
                place, self._place = self._place, None
                begun = place if place is not None and place.task == row.id else _Ran(row.id)
                told, is_all = _add_up(self._fetch, begun, self.meter)
                if not is_all:
                    self.stopped = told
                    return None
                if told.number:
                    running = 0.0 if told.since is None else max(0.0, self._now - told.since)
                    ran = told.seconds + running
        result = None
        if with_result and row.state is State.SUCCEEDED:
            result = _value(self._fetch, "results", row.id)
            self.meter.read(ROW, result)
        return Told(row, result, ran)


def _value(fetch: Fetch, table: str, task: int) -> bytes | None:
    found = fetch(f"select value from {table} where task = ?", task) if schema.is_id(task) else []
    return found[0][0] if found else None


def _shown(fetch: Fetch, query: Shown) -> Part[Told]:
    found: list[Told] = []
    telling = _Telling(fetch, query.now, query.place)
    some, rest = query.tasks[:WORK], query.tasks[WORK:]
    if query.only_settled:
        telling.meter.read(len(some) // 2)
        settled = {row[0] for row in fetch(_GLANCES, _numbers(some)) if row[3] in _SETTLED}
        some = tuple(task for task in some if task in settled)
    last = -1
    for index, row in _rows_of(fetch, some, telling.meter):
        last = index
        if row is None or (query.only_settled and row.state not in SETTLED):
            continue
        if (told := telling.of(row, True)) is None:
            return Part(found, query._replace(tasks=some[index:] + rest, place=telling.stopped))
        found.append(told)
    rest = some[last + 1 :] + rest
    return Part(found, query._replace(tasks=rest, place=None) if rest else None)


def _scan(filter: Filter) -> tuple[str, list[Any]]:
    """A statement that gives the ids below ``?``, newest first, by one index, and whether each fits
    all of the filter; and its values before these two."""
    named: dict[str, Any] = {"name": filter.name, "queue": filter.queue, "owner": filter.owner}
    wanted = {column: value for column, value in named.items() if value is not None}
    if filter.state is not None:
        state: dict[str, Any] = {"state": filter.state.value}
        # The first column's index is used, and must narrow most: queued and succeeded tasks
        # may be a million, tasks in another state are few.
        is_broad = filter.state in (State.QUEUED, State.SUCCEEDED)
        wanted = wanted | state if is_broad else state | wanted
    first, *rest = wanted or [""]
    fits = " and ".join(f"{column} = ?" for column in rest) or "1"
    source = f"tasks indexed by tasks_{first} where {first} = ? and" if first else "tasks where"
    sql = f"select id, {fits} from {source} id < ? order by id desc limit ?"
    return sql, [wanted[column] for column in [*rest, first] if column]


def _listed(fetch: Fetch, query: Listed) -> Part[Told]:
    found: list[Told] = []
    telling = _Telling(fetch, query.now, query.place)
    meter = telling.meter
    unread = meter.bytes
    sql, values = _scan(query.filter)
    before, left, room = query.filter.before, query.filter.limit, query.room
    before = schema.LARGEST if before is None else min(before, schema.LARGEST)

    def rest(before: int) -> Part[Told]:
        narrowed = query.filter._replace(before=before, limit=left)
        place = telling.stopped
        return Part(found, query._replace(filter=narrowed, room=room, place=place))

    while True:
        scanned = fetch(sql, *values, before, AT_ONCE)
        meter.read(ROW + len(scanned))
        fitting = [task for task, fits in scanned if fits]
        for index, row in _rows_of(fetch, fitting, meter):
            if row is not None:
                if (told := telling.of(row, query.with_results)) is None:
                    return rest(row.id + 1)
                found.append(told)
                left -= 1
                room, unread = room - (unread - meter.bytes), meter.bytes
                if left == 0 or room <= 0:
                    return Part(found, None)
            if meter.is_used_up and index + 1 < len(fitting):
                return rest(fitting[index])
        if len(scanned) < AT_ONCE:
            return Part(found, None)
        before = scanned[-1][0]
        if meter.is_used_up:
            return rest(before)


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
        args, saved = (_value(fetch, table, task) for table in ("arguments", "saved"))
        meter.read(2 * ROW, args, saved)
        if args is not None:
            found.append(Stored(task, args, saved))
    return Part(found, None)


def _next_due(fetch: Fetch, _: NextDue) -> float | None:
    due_in = [seconds for (seconds,) in fetch(_NEXT_DUE) + fetch(_PAUSE_ENDS)]
    return max(0.0, min(due_in)) if due_in else None


def _store_size(fetch: Fetch, _: StoreSize) -> Size:
    names = ("page_size", "page_count", "freelist_count", "auto_vacuum")
    page, pages, free, mode = (fetch(f"pragma {name}")[0][0] for name in names)
    return Size(page * pages, page * free, mode == _INCREMENTAL)


ANSWERS: dict[type, Callable[[Fetch, Any], Any]] = {
    Rows: _rows,
    Glances: _glances,
    RunningRows: _running_rows,
    Shown: _shown,
    Listed: _listed,
    Events: events,
    QueueCounts: _queue_counts,
    WaitingGroups: _waiting_groups,
    Startable: _startable,
    Ready: picking.ready,
    StoredData: _stored,
    Expired: expiring.expired,
    Purged: expiring.purged,
    Removed: expiring.removed,
    StoreSize: _store_size,
    NextDue: _next_due,
    Pauses: lambda fetch, _: pausing.every(fetch),
}

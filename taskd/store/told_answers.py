"""Tasks as they are told: ``Shown`` and ``Listed``, in parts (see ``answers``)."""

from __future__ import annotations

from typing import Any

from taskd.model.task import SETTLED, State
from taskd.record import Record
from taskd.store import ordering, schema
from taskd.store.meter import AT_ONCE, FEW, ROW, WORK, Fetch, Meter
from taskd.store.queries import AFTER, ARGUMENTS, Filter, Listed, Part, Shown, Told
from taskd.store.row_answers import GLANCES, numbers, rows_of, value_of
from taskd.store.values import Row

_ARGUMENTS = (
    "select iif(length(value) <= ?, value, null), length(value) from arguments where task = ?"
)

SEARCHED = 16 * 1024
"""Bytes of arguments, or of an error, that are searched for a text; longer ones are passed over."""

_HAS_TEXT = (
    f"(ifnull(length(error) <= {SEARCHED} and instr(error, ?), 0)"
    " or ifnull(instr(cast(reason as blob), ?), 0)"
    " or exists (select 1 from arguments a where a.task = tasks.id"
    f" and length(a.value) <= {SEARCHED} and instr(a.value, ?)))"
)
_HISTORY = (
    "select number, state, at from events indexed by events_task"
    " where task = ? and number > ? order by number limit ?"
)

_SETTLED = frozenset(state.value for state in SETTLED)
_ONE_RUN = frozenset({State.RUNNING, State.SUCCEEDED, State.FAILED})
"""States in which a task with one attempt has run ever since, or until its end."""


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
            result = value_of(self._fetch, "results", row.id)
            self.meter.read(ROW, result)
        found = self._fetch(_ARGUMENTS, ARGUMENTS, row.id)
        args, size = found[0] if found else (b"", 0)
        self.meter.read(ROW, args)
        after = () if row.if_failed is None else ordering.of(self._fetch, row.id, AFTER)
        self.meter.read(2 * len(after))
        return Told(row, result, ran, size if args is None else args, after)


def shown(fetch: Fetch, query: Shown) -> Part[Told]:
    found: list[Told] = []
    telling = _Telling(fetch, query.now, query.place)
    some, rest = query.tasks[:WORK], query.tasks[WORK:]
    if query.only_settled:
        telling.meter.read(len(some) // 2)
        settled = {row[0] for row in fetch(GLANCES, numbers(some)) if row[3] in _SETTLED}
        some = tuple(task for task in some if task in settled)
    last = -1
    for index, row in rows_of(fetch, some, telling.meter):
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
    others = [
        (condition, [value] * condition.count("?"))
        for condition, value in (
            ("key = ?", filter.key),
            ("revision = ?", filter.revision),
            ("submitted >= ?", filter.since),
            ("submitted <= ?", filter.until),
            (_HAS_TEXT, None if filter.text is None else filter.text.encode()),
        )
        if value is not None
    ]
    if filter.state is not None:
        state: dict[str, Any] = {"state": filter.state.value}
        # The first column's index is used, and must narrow most: queued and succeeded tasks
        # may be a million, tasks in another state are few.
        is_broad = filter.state in (State.QUEUED, State.SUCCEEDED)
        wanted = wanted | state if is_broad else state | wanted
    first, *rest = wanted or [""]
    conditions = [*(f"{column} = ?" for column in rest), *(each for each, _ in others)]
    fits = " and ".join(conditions) or "1"
    source = f"tasks indexed by tasks_{first} where {first} = ? and" if first else "tasks where"
    sql = f"select id, {fits} from {source} id < ? order by id desc limit ?"
    values = [wanted[column] for column in rest] + [each for _, of in others for each in of]
    return sql, [*values, *([wanted[first]] if first else [])]


def listed(fetch: Fetch, query: Listed) -> Part[Told]:
    found: list[Told] = []
    telling = _Telling(fetch, query.now, query.place)
    meter = telling.meter
    unread = meter.bytes
    sql, values = _scan(query.filter)
    before, left, room = query.filter.before, query.filter.limit, query.room
    before = schema.LARGEST if before is None else min(before, schema.LARGEST)

    at_once = AT_ONCE if query.filter.text is None else FEW

    def rest(before: int) -> Part[Told]:
        narrowed = query.filter._replace(before=before, limit=left)
        place = telling.stopped
        return Part(found, query._replace(filter=narrowed, room=room, place=place))

    while True:
        scanned = fetch(sql, *values, before, at_once)
        meter.read(ROW + len(scanned) * (AT_ONCE // at_once))
        fitting = [task for task, fits in scanned if fits]
        for index, row in rows_of(fetch, fitting, meter):
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
        if len(scanned) < at_once:
            return Part(found, None)
        before = scanned[-1][0]
        if meter.is_used_up:
            return rest(before)

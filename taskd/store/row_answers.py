"""The rows of tasks, whole or at a glance: answers in parts (see ``answers``)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from taskd.model.task import State
from taskd.store import schema
from taskd.store.meter import AT_ONCE, FEW, ROW, WORK, Fetch, Meter
from taskd.store.queries import Glance, Glances, Part, Rows, RunningRows
from taskd.store.rows import COLUMNS, row_of
from taskd.store.values import Row

_TASKS = f"select {COLUMNS} from tasks where id in (select value from json_each(?))"
GLANCES = "select id, owner, queue, state from tasks where id in (select value from json_each(?))"
_RUNNING = (
    "select id from tasks indexed by tasks_state"
    " where state = 'running' and id > ? order by id limit ?"
)


def numbers(tasks: Sequence[int]) -> str:
    """The ids as JSON, without those that no task can have."""
    return str([task for task in tasks if schema.is_id(task)])


def rows_of(fetch: Fetch, tasks: Sequence[int], meter: Meter) -> Iterator[tuple[int, Row | None]]:
    """The row of each of the tasks (None: it is not known) with its place in ``tasks``, until the
    meter is used up: of one task at least."""
    for start in range(0, len(tasks), FEW):
        some = tasks[start : start + FEW]
        found = {row[0]: row for row in fetch(_TASKS, numbers(some))}
        meter.read(ROW)
        for index, task in enumerate(some, start):
            row = found.get(task)
            if row is not None:
                meter.read(ROW, *row[19:22])
            yield index, None if row is None else row_of(row)
            if meter.is_used_up:
                return


def rows(fetch: Fetch, query: Rows) -> Part[Row]:
    rows: list[Row] = []
    last = -1
    for index, row in rows_of(fetch, query.tasks, meter := Meter()):
        last = index
        if row is not None:
            rows.append(row)
    rest = query.tasks[last + 1 :] if meter.is_used_up else ()
    return Part(rows, Rows(rest) if rest else None)


def glances(fetch: Fetch, query: Glances) -> Part[Glance]:
    some, rest = query.tasks[:WORK], query.tasks[WORK:]
    rows = {row[0]: row for row in fetch(GLANCES, numbers(some))}
    known = [rows[task] for task in some if task in rows]
    found = [Glance._make((*row[:3], State(row[3]))) for row in known]
    return Part(found, Glances(rest) if rest else None)


def running_rows(fetch: Fetch, query: RunningRows) -> Part[Row]:
    ids = [task for (task,) in fetch(_RUNNING, query.after, AT_ONCE)]
    rows: list[Row] = []
    last = -1
    for index, row in rows_of(fetch, ids, meter := Meter()):
        last = index
        if row is not None and row.state is State.RUNNING:
            rows.append(row)
    if meter.is_used_up:
        return Part(rows, RunningRows(ids[last]))
    return Part(rows, RunningRows(ids[-1]) if len(ids) == AT_ONCE else None)


def value_of(fetch: Fetch, table: str, task: int) -> bytes | None:
    found = fetch(f"select value from {table} where task = ?", task) if schema.is_id(task) else []
    return found[0][0] if found else None

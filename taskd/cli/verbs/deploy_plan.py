"""A deploy's plan (PLAN in ``protocol.client``) as tables, as remarks and as JSON. Pure.

Its lists have the first rows of each verdict, its counts are of all tasks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from taskd.cli.output import text
from taskd.cli.output.text import Column

Plan = Mapping[str, Any]

_RUNNING = (
    Column("TASK", right=True),
    Column("NAME"),
    Column("ON"),
    Column("VERDICT"),
    Column("WHY"),
)

_WAITING = (
    Column("WAITING", right=True),
    Column("NAME"),
    Column("VERSION", right=True),
    Column("ARGUMENTS"),
    Column("VERDICT"),
    Column("WHY"),
)

VERDICTS = ("finishes", "moves", "continues", "accepted", "held")


def page(plan: Plan, width: int) -> list[str]:
    """All of it, for people; lines are cut at ``width`` columns."""
    counts, shown = counted(plan), Counter[str]()
    for row in (*plan["running"], *plan["waiting"]):
        shown[row["verdict"]] += row.get("count", 1)
    said = ", ".join(f"{number} {verdict}" for verdict, number in counts.items() if number)
    more = [
        f"{n - shown[verdict]} {verdict}" for verdict, n in counts.items() if n > shown[verdict]
    ]
    running = [_cells(row, "task name revision verdict why") for row in plan["running"]]
    waiting = [_cells(row, "count name version shape verdict why") for row in plan["waiting"]]
    parts = (
        [f"{text.clean(plan['target'])}: {said or 'nothing runs or waits'}"],
        text.table(_RUNNING, running, width),
        text.table(_WAITING, waiting, width),
        [f"tasks that are not shown: {', '.join(more)}"] * bool(more),
        [text.clean(line) for line in (*_schedules(plan), *_environment(plan))],
        [f"warning: {text.clean(warning)}" for warning in plan["warnings"]],
    )
    return [line for n, part in enumerate(parts) if part for line in [""] * bool(n) + part]


def remarks(plan: Plan) -> list[str]:
    """What the operator has to know after a deploy that went through: warnings, tasks that are held
    now, and tasks that would be held if their worker died."""
    running, waiting = (
        [row for row in plan[part] if row["verdict"] in ("held", "accepted")]
        for part in ("running", "waiting")
    )
    counts = counted(plan)
    told = sum(row.get("count", 1) for row in (*running, *waiting))
    more = counts["held"] + counts["accepted"] - told
    return [
        *_schedules(plan),
        *_environment(plan),
        *(f"warning: {warning}" for warning in plan["warnings"]),
        *(f"would be held: {_who(row)}: {row['why']}" for row in running),
        *(f"held: {_who(row)}: {row['why']}" for row in waiting),
        *[f"held: {more} more"] * (more > 0),
    ]


def to_json(plan: Plan) -> dict[str, Any]:
    """As it came, but a task's id is a text, as everywhere in JSON."""
    return {**plan, "running": [{**row, "task": str(row["task"])} for row in plan["running"]]}


def counted(plan: Plan) -> dict[str, int]:
    """Tasks by verdict."""
    return {**dict.fromkeys(VERDICTS, 0), **plan["counts"]}


def _environment(plan: Plan) -> list[str]:
    """A line that names the variables which differ from those of the release that served."""
    changes = plan.get("environment") or {}
    told = "; ".join(f"{', '.join(names)} {what}" for what, names in changes.items())
    return [f"environment: {told}"] * bool(told)


def _schedules(plan: Plan) -> list[str]:
    rows = plan.get("schedules") or ()
    return [f"schedule {row['name']}: {row['change']}: {row['text']}" for row in rows]


def _who(row: Mapping[str, Any]) -> str:
    if "task" in row:
        return f"task {row['task']} ({row['name']})"
    return f"{row['count']} waiting {row['name']} (version {row['version']})"


def _cells(row: Mapping[str, Any], names: str) -> Sequence[str]:
    return ["-" if row[name] in (None, "") else str(row[name]) for name in names.split()]

"""A deploy's plan (PLAN in ``protocol.control``) as tables, as remarks and as JSON. Pure.

Its lists have the first rows of each verdict; a daemon before 0.2 sends them all, and no counts.
"""

from __future__ import annotations

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
    parts = (
        [_summary(plan)],
        text.table(_RUNNING, [_running(row) for row in plan["running"]], width),
        text.table(_WAITING, [_waiting(row) for row in plan["waiting"]], width),
        _left_out(plan),
        [f"warning: {text.clean(warning)}" for warning in plan["warnings"]],
    )
    shown = [part for part in parts if part]
    return [line for n, part in enumerate(shown) for line in [""] * bool(n) + part]


def held(plan: Plan) -> int:
    """How many tasks would be held."""
    return _counts(plan)["held"]


def remarks(plan: Plan) -> list[str]:
    """What one has to know although the deploy went well: warnings, and what is held now,
    or would be if its worker died."""
    rows = {what: list(filter(_is_held, plan[what])) for what in ("running", "waiting")}
    told = sum(row.get("count", 1) for row in (*rows["running"], *rows["waiting"]))
    counts = _counts(plan)
    more = counts["held"] + counts["accepted"] - told
    return [
        *(f"warning: {warning}" for warning in plan["warnings"]),
        *(f"would be held: {_who(row)}: {row['why']}" for row in rows["running"]),
        *(f"held: {_who(row)}: {row['why']}" for row in rows["waiting"]),
        *[f"held: {more} more"] * (more > 0),
    ]


def _is_held(row: Mapping[str, Any]) -> bool:
    return row["verdict"] in ("held", "accepted")


def running_on(plan: Plan, revision: str) -> int:
    """How many tasks run on that revision."""
    if (on := plan.get("on")) is not None:
        return int(on.get(revision, 0))
    return sum(row["revision"] == revision for row in plan["running"])


def _left_out(plan: Plan) -> list[str]:
    """What the tables have no room for."""
    shown = _shown(plan)
    more = {verdict: n - shown[verdict] for verdict, n in _counts(plan).items()}
    parts = [f"{number} {verdict}" for verdict, number in more.items() if number > 0]
    return [f"tasks that are not shown: {', '.join(parts)}"] * bool(parts)


def to_json(plan: Plan) -> dict[str, Any]:
    """As it came, but a task's id is a text, as everywhere in JSON."""
    running = [{**row, "task": str(row["task"])} for row in plan["running"]]
    return {**plan, "running": running}


def _summary(plan: Plan) -> str:
    counts = [f"{number} {verdict}" for verdict, number in _counts(plan).items() if number]
    return f"{text.clean(plan['target'])}: {', '.join(counts) or 'nothing runs or waits'}"


def _counts(plan: Plan) -> dict[str, int]:
    """Tasks by verdict."""
    return dict.fromkeys(VERDICTS, 0) | (plan.get("counts") or _shown(plan))


def _shown(plan: Plan) -> dict[str, int]:
    counts = dict.fromkeys(VERDICTS, 0)
    for row in _rows(plan):
        counts[row["verdict"]] = counts.get(row["verdict"], 0) + row.get("count", 1)
    return counts


def _rows(plan: Plan) -> Sequence[Mapping[str, Any]]:
    return [*plan["running"], *plan["waiting"]]


def _who(row: Mapping[str, Any]) -> str:
    if "task" in row:
        return f"task {row['task']} ({row['name']})"
    return f"{row['count']} waiting {row['name']} (version {row['version']})"


def _running(row: Mapping[str, Any]) -> list[str]:
    names = ("task", "name", "revision", "verdict", "why")
    return [_cell(row[name]) for name in names]


def _waiting(row: Mapping[str, Any]) -> list[str]:
    names = ("count", "name", "version", "shape", "verdict", "why")
    return [_cell(row[name]) for name in names]


def _cell(value: Any) -> str:
    return "-" if value in (None, "") else str(value)

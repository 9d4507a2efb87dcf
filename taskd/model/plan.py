"""A deploy's plan: what becomes of everything that waits or runs, from the new revision's answers.

Pure. What the new revision cannot take is *held*: nothing of it is lost, but it would wait for an
operator, so it refuses the deploy unless held tasks are allowed. A running task that the new
revision cannot take finishes on the revision it runs on, as long as its worker lives.

Tasks that the revision that serves now cannot go on with either were *accepted* when that one was
deployed: this deploy makes nothing worse for them, and is not refused because of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from taskd.model.routing import can_run
from taskd.model.task import OnDeploy
from taskd.record import Record

PINNED = 2
"""Interruptions in a row without progress, after which a task is left to finish where it is."""


FIRST = 100
"""Rows of each verdict that are told; the others are counted."""

TEXT = 500
"""Characters of a row's text, and of a warning, that are told."""

Row = dict[str, Any]


class Item(Record):
    """A group of ``tasks`` waiting tasks, or one running ``task``, that the new revision judges.

    ``version``: of what is saved, if ``has_saved``, else the one at submission. ``example``: the
    task whose arguments and state stand for a group. ``accepted``: the revision that serves now
    could not go on with it either. ``stays``: it runs on the new revision already.
    """

    name: str
    version: int
    has_saved: bool = False
    shape: str | None = None
    tasks: int = 0
    task: int | None = None
    revision: str | None = None
    example: int = 0
    accepted: bool = False
    stays: bool = False
    on_deploy: str = OnDeploy.FINISH.value
    interruptions: int = 0


class Plan(Record):
    """All rows of PLAN (see ``protocol.control``), and in ``unfit`` the tasks that the new revision
    cannot take: running tasks, which are not asked to leave for it; and the example of each waiting
    group that has something saved."""

    target: str
    running: list[Row]
    waiting: list[Row]
    warnings: list[str]
    unfit: list[int]
    schedules: tuple[Row, ...] = ()

    def wire(self) -> Row:
        """Of bounded size, however much waits and runs."""
        return {
            "target": self.target,
            "running": _first(self.running),
            "waiting": _first(self.waiting),
            "warnings": [_cut(text) for text in self.warnings[:FIRST]],
            "schedules": list(self.schedules[:FIRST]),
            "counts": self._counts(),
            "on": dict(Counter(row["revision"] or "" for row in self.running)),
        }

    def _counts(self) -> dict[str, int]:
        """Tasks by verdict."""
        counts: dict[str, int] = {}
        for row in (*self.running, *self.waiting):
            counts[row["verdict"]] = counts.get(row["verdict"], 0) + row.get("count", 1)
        return counts

    @property
    def held(self) -> int:
        """How many tasks would be held, and refuse the deploy."""
        return self._counts().get("held", 0)

    def why_held(self) -> str:
        """Two sentences for a refusal."""
        waiting, running = ([row for row in rows if row["verdict"] == "held"]
                            for rows in (self.waiting, self.running))  # fmt: skip
        held = [*waiting, *running]
        shown = "; ".join(f"{_who(row)}: {row['why']}" for row in held[:3])
        more = f"; and {len(held) - 3} more" if len(held) > 3 else ""
        becomes = ["what waits is held for an operator"] * bool(waiting)
        becomes += ["what runs finishes where it is"] * bool(running)
        return (
            f"{self.target} cannot go on with {self.held} of the tasks that wait or run: "
            f"{shown}{more}. Mend it, or deploy with --allow-held: {', and '.join(becomes)}"
        )


def _first(rows: Sequence[Row]) -> list[Row]:
    """The first of each verdict, their texts cut."""
    seen: Counter[str] = Counter()
    found = []
    for row in rows:
        seen[row["verdict"]] += 1
        if seen[row["verdict"]] <= FIRST:
            found.append({name: _cut(value) for name, value in row.items()})
    return found


def _cut(value: Any) -> Any:
    return f"{value[: TEXT - 1]}…" if isinstance(value, str) and len(value) > TEXT else value


def _who(row: Mapping[str, Any]) -> str:
    if "task" in row:
        return f"task {row['task']} ({row['name']}, running)"
    return f"{row['count']} of {row['name']} (waiting)"


def judge(
    items: Sequence[Item],
    refused: Mapping[int, str],
    target: tuple[str, Mapping[str, Any]],
    others: Sequence[tuple[str, Mapping[str, Any]]],
    before: Mapping[str, Any],
) -> Plan:
    """``refused``: why, by the item's position. ``others``: the other live revisions and their
    tasks; ``before``: the tasks of the current one."""
    running, waiting, unfit = [], [], []
    for ref, item in enumerate(items):
        why = refused.get(ref)
        if item.task is None:
            waiting.append(row := _waiting(item, why, target[1], others))
            if item.has_saved and row["verdict"] != "continues":
                unfit.append(item.example)
            continue
        running.append(_running(item, why))
        if why is not None and not item.stays:
            unfit.append(item.task)
    return Plan(target[0], running, waiting, _warnings(before, target[1]), unfit)


def _running(item: Item, why: str | None) -> Row:
    verdict, reason = "finishes", None
    if why is not None and not item.stays:
        verdict = "accepted" if item.accepted else "held"
        reason = f"{why} (it finishes on {item.revision} as long as its worker lives)"
    elif item.on_deploy == OnDeploy.CHECKPOINT.value and not item.stays:
        verdict = "moves"
        if item.interruptions >= PINNED:
            verdict = "finishes"
            reason = f"it left {item.interruptions} times without progress"
    return {
        "task": item.task,
        "name": item.name,
        "revision": item.revision,
        "verdict": verdict,
        "why": reason,
    }


def _waiting(
    item: Item,
    why: str | None,
    target: Mapping[str, Any],
    others: Sequence[tuple[str, Mapping[str, Any]]],
) -> Row:
    """A group continues on an older revision, which is kept for it (see the master's
    ``retirement``), if by its manifest the new revision cannot run it. If the new one can by its
    manifest, but its migration fails, no older one is kept."""
    verdict = "continues"
    if why is not None:
        verdict = "accepted" if item.accepted else "held"
        if item.has_saved and can_run(target, item.name, item.version) is not None:
            able = (name for name, tasks in others if not can_run(tasks, item.name, item.version))
            if (name := next(able, None)) is not None:
                verdict, why = "continues", f"on {name}: {why}"
    return {
        "name": item.name,
        "version": item.version,
        "shape": item.shape,
        "count": item.tasks,
        "verdict": verdict,
        "why": why,
    }


def _warnings(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Tasks whose steps or loops have other names, while their version is the same."""
    found = []
    for name, entry in sorted(after.items()):
        old = before.get(name)
        if old is None or old["version"] != entry["version"]:
            continue
        had, has = old.get("names"), entry.get("names")
        if had is None or has is None or set(had) == set(has):
            continue
        gone, new = sorted(set(had) - set(has)), sorted(set(has) - set(had))
        changes = [f"{', '.join(gone)} went"] if gone else []
        changes += [f"{', '.join(new)} came"] if new else []
        found.append(
            f"{name}: its steps or loops changed ({'; '.join(changes)}) but its version is still "
            f"{entry['version']}: saved state goes by these names"
        )
    return found


def narrowed(
    mistyped: Sequence[tuple[Item, str]], before: Mapping[str, Any], after: Mapping[str, Any]
) -> list[str]:
    """Of waiting tasks whose arguments are not of the types that the new code says, and why of one
    of each group: they were accepted, and run all the same. Told once, by the deploy that brings
    these types; ``before``: the tasks of the current revision."""
    found = []
    for item, why in mistyped:
        types = before.get(item.name, {}).get("types")
        if item.task is not None or types == after[item.name].get("types"):
            continue
        waiting = "1 task waits" if item.tasks == 1 else f"{item.tasks} tasks wait"
        found.append(
            f"{item.name}: {waiting} with such arguments, and of task {item.example} {why}: what "
            "was accepted runs with its arguments as they are"
        )
    return found

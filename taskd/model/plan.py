"""A deploy's plan: what becomes of everything that waits or runs, from the new revision's answers.

Pure. What the new revision cannot take is *held*: nothing of it is lost, but it would wait for an
operator, so it refuses the deploy unless held tasks are allowed. A running task that the new
revision cannot take finishes on the revision it runs on, as long as its worker lives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from taskd.model.routing import can_run
from taskd.model.task import OnDeploy

PINNED = 2
"""Interruptions in a row without progress, after which a task is left to finish where it is."""


class Item(NamedTuple):
    """One thing to be answered for: a group that waits (``tasks`` of them) or one running task.

    ``version``: of what is saved, if ``has_saved``, else the one at submission.
    """

    name: str
    version: int
    has_saved: bool = False
    shape: str | None = None
    tasks: int = 0
    task: int | None = None
    revision: str | None = None
    stays: bool = False
    on_deploy: str = OnDeploy.FINISH.value
    interruptions: int = 0


class Plan(NamedTuple):
    """The wire form's lists (PLAN in ``protocol.client``), and how many tasks would be held."""

    target: str
    running: list[dict[str, Any]]
    waiting: list[dict[str, Any]]
    warnings: list[str]
    held: int

    def wire(self) -> dict[str, Any]:
        return {
            "target": self.target,
            "running": self.running,
            "waiting": self.waiting,
            "warnings": self.warnings,
        }

    def why_held(self) -> str:
        """One sentence for a refusal."""
        held = [row for row in (*self.waiting, *self.running) if row["verdict"] == "held"]
        shown = "; ".join(f"{_who(row)}: {row['why']}" for row in held[:3])
        more = f"; and {len(held) - 3} more" if len(held) > 3 else ""
        return (
            f"{self.target} cannot go on with {self.held} of the tasks that wait or run: "
            f"{shown}{more}. Mend it, or deploy with --allow-held and they wait for an operator"
        )


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
    running, waiting, held = [], [], 0
    for ref, item in enumerate(items):
        why = refused.get(ref)
        if item.task is not None:
            row = _running(item, why)
            running.append(row)
            held += row["verdict"] == "held"
        else:
            row = _waiting(item, why, others)
            waiting.append(row)
            held += item.tasks if row["verdict"] == "held" else 0
    return Plan(target[0], running, waiting, _warnings(before, target[1]), held)


def _running(item: Item, why: str | None) -> dict[str, Any]:
    verdict, reason = "finishes", None
    if why is not None and not item.stays:
        verdict = "held"
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
    item: Item, why: str | None, others: Sequence[tuple[str, Mapping[str, Any]]]
) -> dict[str, Any]:
    verdict = "continues"
    if why is not None:
        verdict = "held"
        version = item.version if item.has_saved else None
        for name, tasks in others:
            if item.has_saved and can_run(tasks, item.name, version) is None:
                verdict, why = "continues", f"on {name}: {why}"
                break
    return {
        "name": item.name,
        "version": item.version,
        "shape": item.shape,
        "count": item.tasks,
        "verdict": verdict,
        "why": why,
    }


def _warnings(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Steps and loops that were renamed although the version says that nothing changed."""
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

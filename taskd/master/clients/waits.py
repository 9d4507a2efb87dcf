"""Tasks that wait for others, as they are told."""

from __future__ import annotations

from typing import Any

from taskd.model.order import IfFailed, after_end
from taskd.model.task import ENDED, State
from taskd.store.values import Dependency, Row

NAMED = 5
"""Tasks that a reason names."""


def view(other: Dependency) -> dict[str, Any]:
    return {"task": other.task, "state": None if other.state is None else other.state.value}


def why(row: Row, after: tuple[Dependency, ...]) -> str:
    """A sentence: for which tasks it waits, and what to do where that has no end by itself."""
    if_failed = IfFailed(row.if_failed or IfFailed.HOLD)
    for other in after:
        if other.state in ENDED and after_end(if_failed, other.state) is None:
            what = "was cancelled" if other.state is State.CANCELLED else "failed"
            return (
                f"waits for task {other.task}, which {what}: `taskctl retry {other.task}`, or "
                f"cancel this one"
            )
    open_ = [f"{other.task} ({_state(other)})" for other in after[: min(row.waits_for, NAMED)]]
    more = row.waits_for - len(open_)
    named = ", ".join(open_) + (f" and {more:,} more" if more > 0 else "")
    return f"waits for task{'s' * (row.waits_for > 1)} {named}"


def _state(other: Dependency) -> str:
    return "removed" if other.state is None else other.state.value

"""A task's attempts and retries as text: the table of ``taskctl show``, and when it is tried next.

Pure.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from taskd.cli.output import text
from taskd.cli.output.text import Column

if TYPE_CHECKING:
    from taskd.client.records import AttemptInfo, TaskInfo

BEGINNING, ENDING = 3, 10
"""Attempts that are shown; JSON has all that are kept."""

_COLUMNS = (
    Column("ATTEMPT", right=True),
    Column("ENDED AS"),
    Column("STARTED"),
    Column("TOOK", right=True),
    Column("REVISION"),
    Column("PID", right=True),
    Column("NOTE"),
)


def table(attempts: Sequence[AttemptInfo], now: float, width: int) -> list[str]:
    """Lines; none for a task of whose single attempt all is told beside it."""
    if not attempts or (len(attempts) == 1 and attempts[0].attempt == 1):
        return []
    shown = [*attempts[:BEGINNING], *attempts[BEGINNING:][-ENDING:]]
    lines = text.table(_COLUMNS, [_row(each, now) for each in shown], width)
    found = lines[:1]
    last = 0
    for each, line in zip(shown, lines[1:], strict=True):
        if (missing := each.attempt - last - 1) > 0:
            found.append(f"  ({missing:,} more that {'is' if missing == 1 else 'are'} not shown)")
        last = each.attempt
        found.append(line)
    return found


def _row(each: AttemptInfo, now: float) -> list[str]:
    took = "-" if each.started is None else text.duration((each.ended or now) - each.started)
    return [
        str(each.attempt),
        each.how or "runs",
        "-" if each.started is None else when(each.started),
        took,
        each.revision or "-",
        str(each.pid or "-"),
        _note(each),
    ]


def _note(each: AttemptInfo) -> str:
    error = each.error or {}
    lines = str(error.get("message", "")).strip().splitlines()
    parts = [": ".join([str(error.get("type", "")), *lines[:1]]) if error else each.reason or ""]
    if each.delay is not None:
        parts.append(f"the next one {text.duration(each.delay)} later")
    return "; ".join(part for part in parts if part)


def when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def next_try(task: TaskInfo, attempts: Sequence[AttemptInfo], now: float) -> str:
    """When a scheduled task goes on, and how long that is after its last attempt; or empty."""
    if task.state != "scheduled" or task.run_at is None:
        return ""
    at = f"{when(task.run_at)} ({text.ago(task.run_at, now)})"
    last = attempts[-1] if attempts else None
    if last is None or last.delay is None:
        return at
    return f"{at}, {text.duration(last.delay)} after {_END.get(last.how or '', 'the last attempt')}"


_END = {"failed": "the failure", "crashed": "the crash"}


def retries(told: dict[str, Any] | None) -> str:
    """``1 of 5 used; waits 1s, 2s, 4s, 8s, 16s: gives up after about 31s``; or empty."""
    if told is None:
        return ""
    used, allowed, waits = told["used"], told["allowed"], told["waits"]
    said = f"{used:,} of {allowed:,} used"
    if told.get("by_function"):
        return f"{said}; a function of the task's says how long each waits"
    more = ", …" if allowed > len(waits) else ""
    said += f"; waits {', '.join(text.duration(each) for each in waits)}{more}"
    return said if more else f"{said}: gives up after about {text.duration(sum(waits))}"

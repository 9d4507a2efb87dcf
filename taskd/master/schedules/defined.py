"""Which schedules a revision has: those of its tasks, and those that it was proved with.

``cronsim`` and ``zoneinfo`` are imported for a revision that has a schedule, and never before a new
image serves.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import cbor2

from taskd.master.fleet import Revision
from taskd.master.schedules import zones
from taskd.model import schedule as model
from taskd.model.arguments import mistyped
from taskd.model.binding import bind
from taskd.model.schedule import Schedule
from taskd.protocol import data
from taskd.record import Record
from taskd.store.schedule_api import Definition

MOST = 1000
"""Schedules of one revision."""

LOOKED_AT = 100
"""New and changed ones of which a plan says what they do where the clocks change."""

_SAME = (
    "it stands in the code of {} and in taskd.toml as [schedules.{}]: a schedule has one place, so "
    "give one of them another name"
)


class Defined(Record):
    """The schedules of a revision by name; and, of those that cannot be, the sentence why."""

    right: dict[str, Schedule]
    wrong: dict[str, str]


class Planned(Record):
    """For a plan: rows (``schedules`` of PLAN), warnings, and why it is refused, if it is."""

    changes: list[dict[str, str]]
    doubts: list[str]
    refusal: str | None


NONE = Defined({}, {})


def planned(before: Defined, after: Defined) -> Planned:
    refusal = None
    if after.wrong:
        told = [f"schedule '{name}': {why}" for name, why in sorted(after.wrong.items())]
        more = f"; and {len(told) - 3} more" if len(told) > 3 else ""
        refusal = "; ".join(told[:3]) + more
    return Planned(_changes(before, after), _doubts(after) + _moved_clocks(before, after), refusal)


def of(revision: Revision) -> Defined:
    found = Defined({}, {})
    said = revision.app.schedules or {}
    for task, entry in revision.tasks.items():
        if (when := entry.get("schedule")) is None:
            continue
        if task in said:
            found.wrong[task] = _SAME.format(revision.name, task)
        else:
            _add(found, revision, task, "code", task, when)
    for name, section in said.items():
        if name not in found.wrong:
            _add(found, revision, name, "config", section.get("task"), section)
    if len(found.right) > MOST:
        found.wrong[next(iter(found.right))] = f"{len(found.right)} are more than {MOST:,}"
    return found


def _add(
    found: Defined, revision: Revision, name: str, source: str, task: Any, said: Mapping[str, Any]
) -> None:
    try:
        made = model.make(name, source, task, said)
        _check_task(revision, made)
        zones.find(made.tz)
    except Exception as error:  # whatever is wrong with one, the others go on
        found.wrong[name] = str(error)
    else:
        found.right[name] = made


def _check_task(revision: Revision, made: Schedule) -> None:
    """Raises ValueError, BadArguments."""
    entry = revision.tasks.get(made.task)
    if entry is None:
        from difflib import get_close_matches

        near = get_close_matches(str(made.task), revision.tasks, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{revision.name} has no task {made.task!r}{hint}")
    if (why := bind(entry, made.args) or mistyped(entry.get("types") or {}, made.args)) is not None:
        raise ValueError(f"task '{made.task}': {why}")
    data.encode(made.args, "args", data.ARGUMENTS_LIMIT)


def definitions(defined: Defined) -> tuple[Definition, ...]:
    """As the store takes them up. One that is wrong is kept as the store knows it, if it does: an
    error is no reason to drop a schedule with its pause."""
    return tuple(
        Definition(each.name, each.timing, cbor2.dumps(each._asdict(), canonical=True))
        for each in defined.right.values()
    )


def in_words(each: Schedule) -> str:
    """``task 'backup', At 03:00 every day (Europe/Berlin)``"""
    from taskd.model import cron

    words = f"every {each.every} s"
    if each.cron is not None:
        words = f"{cron.in_words(each.cron)} ({each.tz})"
    return f"task '{each.task}', {words}"


def _changes(before: Defined, after: Defined) -> list[dict[str, str]]:
    """What a deploy does with schedules: rows of PLAN (see ``protocol.control``)."""
    rows = []
    for name, each in sorted(after.right.items()):
        known = before.right.get(name)
        if known != each:
            change = "new" if known is None else "changed"
            rows.append({"name": name, "change": change, "text": in_words(each)})
    for name, each in sorted(before.right.items()):
        if name not in after.right:
            rows.append({"name": name, "change": "dropped", "text": in_words(each)})
    return rows


def _doubts(defined: Defined) -> list[str]:
    from taskd.model import cron

    return [
        f"schedule '{name}': {doubt}"
        for name, each in sorted(defined.right.items())
        for doubt in ([] if each.cron is None else cron.doubts(each.cron))
    ]


def _moved_clocks(before: Defined, after: Defined) -> list[str]:
    from taskd.model import clock_changes

    changed = [
        (name, each.cron, each.tz)
        for name, each in sorted(after.right.items())
        if each.cron is not None and before.right.get(name) != each
    ]
    return [
        f"schedule '{name}': {sentence}"
        for name, expression, tz in changed[:LOOKED_AT]
        for sentence in clock_changes.told(expression, zones.find(tz), time.time())
    ]

"""``taskctl list``: tasks as a table, narrowed by filters; which columns are shown.

A column that no task has anything for is left out, unless ``--columns`` names it. Where the list is
cut, running and held tasks come first: they are what one looks for.
"""

from __future__ import annotations

import difflib
import sys
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from taskd.cli.output import text
from taskd.cli.output.text import Column, Look
from taskd.cli.verbs import options
from taskd.cli.verbs.tasks import after, counted, percent, task_line, took, waited, why
from taskd.model.task import State
from taskd.record import Record

if TYPE_CHECKING:
    from taskd.client.blocking import Client
    from taskd.client.records import TaskInfo

_FIRST = ("running", "held")


class _Shown(Record):
    """One column: its head, what it says of a task, and what says nothing."""

    head: Column
    of: Callable[[TaskInfo, float], str]
    nothing: str | None = None


_COLUMNS = {
    "id": _Shown(Column("ID", right=True), lambda task, _: str(task.id)),
    "name": _Shown(Column("NAME"), lambda task, _: text.cut(text.clean(task.name), 40)),
    "state": _Shown(Column("STATE"), lambda task, _: task.shown),
    "queue": _Shown(Column("QUEUE"), lambda task, _: task.queue, "default"),
    "revision": _Shown(Column("REVISION"), lambda task, _: task.revision or "-"),
    "submitted": _Shown(
        Column("SUBMITTED", right=True), lambda task, now: text.ago(task.submitted, now)
    ),
    "took": _Shown(Column("TOOK", right=True), lambda task, _: took(task)),
    "done": _Shown(
        Column("DONE", right=True), lambda task, _: percent(task) or counted(task) or "-", "-"
    ),
    "arguments": _Shown(Column("ARGUMENTS"), lambda task, _: task.arguments or "", ""),
    "note": _Shown(Column("NOTE"), lambda task, _: why(task) or _note(task), ""),
    "owner": _Shown(Column("OWNER"), lambda task, _: options.user_name(task.owner)),
    "key": _Shown(Column("KEY"), lambda task, _: task.key or "-"),
    "priority": _Shown(Column("PRIORITY", right=True), lambda task, _: str(task.priority)),
    "attempt": _Shown(Column("ATTEMPT", right=True), lambda task, _: str(task.attempt or "-")),
    "after": _Shown(Column("AFTER"), lambda task, _: after(task) or "-"),
    "waited": _Shown(Column("WAITED", right=True), lambda task, _: waited(task) or "-"),
}

_USUAL = list(_COLUMNS)[: list(_COLUMNS).index("note") + 1]

_WIDEST = 60
"""Columns of a terminal that the arguments take at most, where a note follows."""


def _columns(word: str) -> list[str]:
    names = [name.strip() for name in word.split(",")]
    if unknown := [name for name in names if name not in _COLUMNS]:
        raise ArgumentTypeError(f"no column {unknown[0]!r}; there are {', '.join(_COLUMNS)}")
    return names


def add_list(parser: ArgumentParser) -> None:
    """``list [--state S] [--queue Q] [--name N] … [--columns C,…] [--limit N] [--json]``"""
    parser.add_argument(
        "--state", choices=[state.value for state in State], help="only tasks in this state"
    )
    parser.add_argument("--queue", help="only tasks of this queue")
    parser.add_argument("--name", help="only tasks of this name")
    parser.add_argument("--owner", metavar="USER", type=options.user_id, help="only this user's")
    parser.add_argument("--key", help="only tasks with this key")
    parser.add_argument("--revision", help="only tasks that this revision ran last")
    when = "2026-12-01T09:30, or 2h for two hours ago"
    parser.add_argument(
        "--since", metavar="TIME", type=options.past, help=f"submitted since then: {when}"
    )
    parser.add_argument("--until", metavar="TIME", type=options.past, help="submitted until then")
    parser.add_argument("--text", help="found in the error, the reason or the arguments")
    parser.add_argument(
        "--columns", metavar="C,...", type=_columns, help=f"of {', '.join(_COLUMNS)}"
    )
    parser.add_argument(
        "--limit", type=options.at_least_one, default=100, help="at most so many (default: 100)"
    )
    options.add_json(parser, "each task as a JSON object, one a line")


def do_list(client: Client, args: Namespace) -> None:
    names = ("queue", "name", "owner", "key", "revision", "since", "until", "text")
    narrow: dict[str, Any] = {name: getattr(args, name) for name in names}
    found = client.tasks(state=args.state, limit=args.limit, results=args.json, **narrow)
    is_cut = len(found) == args.limit
    if is_cut and args.state is None and not args.json:
        first = [
            task
            for state in _FIRST
            for task in client.tasks(state=state, limit=args.limit, **narrow)
        ]
        ids = {task.id for task in first}
        found = [*first, *(task for task in found if task.id not in ids)][: args.limit]
    if args.json:
        lines = [task_line(task) for task in found]
    else:
        lines = _table(found, args.columns, time.time(), Look.of().width)
    print("".join(f"{line}\n" for line in lines), end="")
    if is_cut and not args.json:
        print(_how_many(client, args, narrow, len(found)), file=sys.stderr)
    if not found and args.name is not None:
        _suggest(client, args.name)


def _table(found: list[TaskInfo], wanted: list[str] | None, now: float, width: int) -> list[str]:
    names = wanted or _USUAL
    cells = {name: [_COLUMNS[name].of(task, now) for task in found] for name in names}
    if wanted is None:
        names = [name for name in names if {*cells[name]} != {_COLUMNS[name].nothing}]
        if "note" in names and "arguments" in names and width < text.PLAIN_WIDTH:
            cells["arguments"] = [
                text.cut(text.clean(each), _WIDEST) for each in cells["arguments"]
            ]
    rows = list(zip(*(cells[name] for name in names), strict=True))
    return text.table([_COLUMNS[name].head for name in names], rows, width)


def _note(task: TaskInfo) -> str:
    return str((task.progress or {}).get("note") or "")


def _how_many(client: Client, args: Namespace, narrow: dict[str, Any], shown: int) -> str:
    """Said where the list is cut; of how many, where that is counted."""
    if any(value is not None for value in narrow.values()):
        return f"the first {shown:,} are shown; more with --limit"
    states = client.status()["states"]
    count = states.get(args.state, 0) if args.state else sum(states.values())
    return f"{shown:,} of {max(count, shown):,} are shown; more with --limit"


def _suggest(client: Client, name: str) -> None:
    """None of that name: perhaps it was misspelt."""
    known = {task.name for task in client.tasks(limit=1000)}
    if near := difflib.get_close_matches(name, known - {name}, 3):
        print(f"no task is named {name!r}; did you mean {' or '.join(near)}?", file=sys.stderr)

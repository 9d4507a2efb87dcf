"""``taskctl revisions``: what lives beside what serves, and why."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from taskd import config
from taskd.cli.output import jsontext, text
from taskd.cli.output.text import Column, Look
from taskd.cli.verbs.options import add_json

if TYPE_CHECKING:
    from taskd.client.blocking import Client

_REVISION = (
    Column("REVISION"),
    Column("STATE"),
    Column("AGE", right=True),
    Column("WORKERS", right=True),
    Column("MEMORY", right=True),
    Column("RUNNING", right=True),
    Column("WAITING", right=True),
    Column("KEPT BY"),
)

_REJECTED = (
    Column("REJECTED"),
    Column("WHEN", right=True),
    Column("WHY"),
)

_NAMED = 3
"""Tasks that a row of the table names; the others are counted."""


def add_revisions(parser: ArgumentParser) -> None:
    """``revisions [--rejected] [--json]``"""
    parser.add_argument(
        "--rejected", action="store_true", help="only the releases that were refused of late"
    )
    add_json(parser, "one JSON object a line: of the live ones, or with --rejected of those")


def do_revisions(client: Client, args: Namespace) -> None:
    live = [] if args.rejected else client.revisions()
    if not args.json:
        lines = page(live, client.rejected(), time.time(), Look.of().width)
    elif args.rejected:
        lines = [jsontext.line(jsontext.only(jsontext.REJECTED, r)) for r in client.rejected()]
    else:
        lines = [
            jsontext.line(
                jsontext.only((*jsontext.REVISION, "age", "memory"), each)
                | {"holds": [{**task, "task": str(task["task"])} for task in each["holds"]]}
            )
            for each in live
        ]
    print("".join(f"{line}\n" for line in lines), end="")


def page(
    live: Sequence[Mapping[str, Any]],
    rejected: Sequence[Mapping[str, Any]],
    now: float,
    width: int,
) -> list[str]:
    """The lines for people; ``now`` in Unix seconds."""
    alive = text.table(_REVISION, [_row(revision) for revision in live], width)
    rows = [[each["revision"], text.ago(each["at"], now), each["reason"]] for each in rejected]
    refused = text.table(_REJECTED, rows, width)
    return [*alive, *[""] * bool(alive and refused), *refused]


def _row(revision: Mapping[str, Any]) -> list[str]:
    age, memory, named = revision["age"], revision["memory"], revision["holds"][:_NAMED]
    holds = ", ".join(f"{task['task']} {task['name']}" for task in named) or "-"
    more = revision["running"] - len(named) if named else 0
    return [
        revision["revision"],
        revision["state"],
        "-" if age is None else text.duration(age),
        str(revision["workers"]),
        "-" if memory is None else config.size_text(memory),
        str(revision["running"]),
        str(revision["waiting"]),
        f"{holds} and {more} more" if more > 0 else holds,
    ]

"""``taskctl revisions``: what lives beside what serves, and why."""

from __future__ import annotations

import os
import sys
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
    if args.json:
        found = client.rejected() if args.rejected else live
        for each in found:
            print(jsontext.line(_rejected_json(each) if args.rejected else _json(each)))
        return
    for line in page(live, client.rejected(), time.time(), Look.of(sys.stdout, os.environ).width):
        print(line)


def _json(revision: Mapping[str, Any]) -> dict[str, Any]:
    more = {name: revision.get(name) for name in jsontext.REVISION_MORE}
    holds = [{**task, "task": str(task["task"])} for task in revision.get("holds") or ()]
    return jsontext.only(jsontext.REVISION, revision) | more | {"holds": holds}


def _rejected_json(rejected: Mapping[str, Any]) -> dict[str, Any]:
    return jsontext.only(jsontext.REJECTED, rejected)


def page(
    live: Sequence[Mapping[str, Any]],
    rejected: Sequence[Mapping[str, Any]],
    now: float,
    width: int,
) -> list[str]:
    """The lines for people; ``now`` in Unix seconds."""
    alive = text.table(_REVISION, [_row(revision) for revision in live], width)
    refused = text.table(_REJECTED, [_rejected(each, now) for each in rejected], width)
    return [*alive, *[""] * bool(alive and refused), *refused]


def _row(revision: Mapping[str, Any]) -> list[str]:
    age, memory = revision.get("age"), revision.get("memory")
    return [
        revision["revision"],
        revision["state"],
        "-" if age is None else text.duration(age),
        str(revision["workers"]),
        "-" if memory is None else config.size_text(memory),
        str(revision["running"]),
        str(revision["waiting"]),
        _kept_by(revision),
    ]


def _kept_by(revision: Mapping[str, Any]) -> str:
    """The tasks whose end it waits for, by id and name, and how many more there are."""
    named = (revision.get("holds") or ())[:_NAMED]
    shown = ", ".join(f"{task['task']} {task['name']}" for task in named)
    more = revision["running"] - len(named)
    if not shown:
        return "-"
    return f"{shown} and {more} more" if more > 0 else shown


def _rejected(rejected: Mapping[str, Any], now: float) -> list[str]:
    return [rejected["revision"], text.ago(rejected["at"], now), rejected["reason"]]

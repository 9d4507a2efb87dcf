"""``taskctl gc``: remove tasks that are over before their time; make the store's file small.

What would be removed is counted and shown first. The tasks are those that were counted: what ends
meanwhile stays. A second call goes on where one was cut off.
"""

from __future__ import annotations

import os
import sys
import time
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from taskd.cli import outcome
from taskd.cli.output import jsontext, text
from taskd.cli.verbs.options import add_json, at_least_one, duration

if TYPE_CHECKING:
    from taskd.client.blocking import Client
    from taskd.client.records import TaskInfo

STATES = ("succeeded", "failed", "cancelled")

SHOWN = 5
"""Tasks that are shown before."""

AT_ONCE = 100
"""Tasks of one request."""

PAGE = 1000


def add_gc(parser: ArgumentParser) -> None:
    """``gc (--state S | --queue Q | --name N | --older T | --all)… [--at-most N] [--yes]``"""
    parser.description = (
        "Remove tasks that are over, with their logs and scratch directories, before [retention] "
        "does. Tells what would be removed, and removes it with --yes, or if you say so."
    )
    parser.add_argument("--state", choices=STATES, help="only tasks that ended so")
    parser.add_argument("--queue", help="only tasks of this queue")
    parser.add_argument("--name", help="only tasks of this name")
    parser.add_argument(
        "--older", metavar="TIME", type=duration, help="only tasks that ended so long ago: 12h, 3d"
    )
    parser.add_argument("--all", action="store_true", help="all tasks that are over")
    parser.add_argument("--at-most", type=at_least_one, help="refuse if there are more")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument(
        "--compact",
        action="store_true",
        help="write the store's file anew, as small as it can be, while submissions wait; then "
        "it shrinks by itself",
    )
    add_json(parser, "one JSON object: found, removed, or before and now (bytes)")


def do_gc(client: Client, args: Namespace) -> int | None:
    narrow = [args.state, args.queue, args.name, args.older]
    if args.compact:
        if args.all or any(narrow):
            raise outcome.UsageError("gc: --compact stands alone")
        _compact(client, args)
        return None
    if bool(args.all) == any(each is not None for each in narrow):
        raise outcome.UsageError("gc: say which (--state, --queue, --name, --older), or --all")
    found = _found(client, args, time.time())
    if args.at_most is not None and len(found) > args.at_most:
        raise outcome.UsageError(f"gc: {len(found):,} tasks, more than {args.at_most:,}")
    if not args.json:
        _show(found)
    if not found or not (args.yes or _agrees(len(found))):
        if args.json:
            print(jsontext.line({"found": len(found), "removed": 0}))
        return 2 if found else None
    removed = _remove(client, [task.id for task in found])
    if args.json:
        print(jsontext.line({"found": len(found), "removed": removed}))
    else:
        print(f"removed {removed:,}")
    return None


def _found(client: Client, args: Namespace, now: float) -> list[TaskInfo]:
    found: list[TaskInfo] = []
    for state in (args.state,) if args.state else STATES:
        before = None
        while page := client.tasks(
            state=state, queue=args.queue, name=args.name, limit=PAGE, before=before
        ):
            before = page[-1].id
            found += [
                task
                for task in page
                if args.older is None or (task.ended or now) <= now - args.older
            ]
    return found


def _show(found: list[TaskInfo]) -> None:
    print(f"{len(found):,} tasks that are over{':' if found else ''}")
    for task in found[:SHOWN]:
        print(text.clean(f"  {task.id}  {task.name}  {task.state}"))
    if len(found) > SHOWN:
        print(f"  … and {len(found) - SHOWN:,} more")


def _agrees(count: int) -> bool:
    if not (os.isatty(0) and os.isatty(1)):
        print("nothing was removed: say --yes", file=sys.stderr)
        return False
    return input(f"remove these {count:,}? [y/N] ").strip().lower() in ("y", "yes")


def _remove(client: Client, tasks: list[int]) -> int:
    removed = 0
    for start in range(0, len(tasks), AT_ONCE):
        removed += len(client.remove(tasks[start : start + AT_ONCE])["removed"])
        if start and start % PAGE == 0:
            print(f"removed {removed:,} of {len(tasks):,}", file=sys.stderr)
    return removed


def _compact(client: Client, args: Namespace) -> None:
    found = client.compact()
    if args.json:
        print(jsontext.line(found))
    else:
        print(f"{found['before']:,} bytes before, {found['now']:,} now")

"""``taskctl schedules``: which there are, when they run; pause, resume, run now."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from taskd.cli import outcome
from taskd.cli.output import jsontext, text
from taskd.cli.output.text import Column, Look
from taskd.cli.verbs.options import add_json

if TYPE_CHECKING:
    from taskd.client.blocking import Client

_COLUMNS = (
    Column("NAME"),
    Column("NEXT"),
    Column("LAST SLOT"),
    Column("LAST TASK", right=True),
    Column("STATE"),
    Column("WHEN"),
)


def add_schedules(parser: ArgumentParser) -> None:
    """``schedules [--json]``, ``schedules pause|resume|run NAME [--catch-up once] [--force]``"""
    parser.description = (
        "List the schedules, or pause, resume or run one of them now. A paused one has no slots; "
        "kept over restarts and deploys."
    )
    parser.add_argument(
        "action", nargs="?", choices=("list", "pause", "resume", "run"), default="list"
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="the schedule's name")
    parser.add_argument(
        "--catch-up",
        choices=("once",),
        help="with resume: one run for what was missed in the pause (default: none)",
    )
    parser.add_argument(
        "--force", action="store_true", help="with run: beside a task of it that waits or runs"
    )
    add_json(parser, "the schedules, one JSON object a line; else one object: was, or id")


def do_schedules(client: Client, args: Namespace) -> int:
    if args.action == "list":
        return _list(client, args)
    if args.name is None:
        raise outcome.UsageError(f"schedules {args.action}: which? NAME is missing")
    name = text.clean(args.name)
    if args.action == "pause":
        answer = client.pause_schedule(args.name)
        said = f"schedule {name}: paused{' (it was before)' if answer['was'] else ''}"
    elif args.action == "resume":
        answer = client.resume_schedule(args.name, catch_up=args.catch_up)
        said = f"schedule {name}: {'resumed' if answer['was'] else 'was not paused'}"
    else:
        answer = client.run_schedule(args.name, force=args.force)
        said = str(answer["id"])
    print(jsontext.line(answer) if args.json else said)
    return outcome.DONE


def _list(client: Client, args: Namespace) -> int:
    found = client.schedules()
    if args.name is not None:
        raise outcome.UsageError("schedules list takes no name")
    if args.json:
        for each in found:
            print(jsontext.line(each))
        return outcome.DONE
    if not found:
        print("no schedules")
    else:
        print("\n".join(text.table(_COLUMNS, [_row(each) for each in found], Look.of().width)))
    for each in found:
        for remark in _remarks(each):
            print(text.clean(f"{each['name']}: {remark}"))
    return outcome.DONE


def _row(each: Mapping[str, Any]) -> list[str]:
    stopped = next((word for word in ("dropped", "paused") if each.get(word)), None)
    return [
        text.clean(each["name"]),
        stopped or _date(each, "next"),
        _date(each, "last_slot"),
        str(each.get("last_task") or ""),
        each.get("last_state") or "",
        text.clean(each.get("text") or ""),
    ]


def _remarks(each: Mapping[str, Any]) -> list[str]:
    found = []
    if each.get("problem"):
        found.append(f"does not run: {each['problem']}")
    if each.get("waits"):
        found.append(f"the slot of {_date(each, 'waits')} waits for an earlier run")
    if each.get("why"):
        found.append(f"the slot of {_date(each, 'skipped')} was skipped: {each['why']}")
    return found


def _date(each: Mapping[str, Any], field: str) -> str:
    at = each.get(field)
    return "" if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))

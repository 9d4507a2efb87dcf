"""``taskctl pause`` and ``taskctl resume``: start nothing fresh of a queue, a task, or at all."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from taskd.cli.output import jsontext, text
from taskd.cli.verbs.options import add_json, duration

if TYPE_CHECKING:
    from taskd.client.blocking import Client


def _add_scope(parser: ArgumentParser) -> None:
    scope = parser.add_mutually_exclusive_group(required=True)
    scope.add_argument("--queue", metavar="QUEUE", help="the tasks of that queue")
    scope.add_argument("--task", metavar="NAME", help="the tasks of that name, in every queue")
    scope.add_argument("--all", action="store_true", help="all tasks, and schedules")


def add_pause(parser: ArgumentParser) -> None:
    """``pause (--queue Q | --task NAME | --all) [--for TIME] [--why TEXT] [--json]``"""
    parser.description = (
        "Start no fresh task, retry or continuation after a crash of a queue or a name, or at all. "
        "What runs goes on, also over deploys; submitting goes on. Kept over restarts."
    )
    _add_scope(parser)
    parser.add_argument(
        "--for",
        dest="seconds",
        metavar="TIME",
        type=duration,
        help="resume by itself after so long: 90s, 10min, 2h, 1d",
    )
    parser.add_argument("--why", metavar="TEXT", help="a reason, shown wherever the pause is")
    add_json(parser, "one JSON object: paused, was")


def do_pause(client: Client, args: Namespace) -> None:
    found = client.pause(queue=args.queue, task=args.task, seconds=args.seconds, why=args.why)
    if args.json:
        print(jsontext.line({"paused": True, "was": found["was"]}))
    else:
        lasts = "" if args.seconds is None else f" for {text.duration(args.seconds)}"
        print(f"{_named(args)}: paused{lasts}{' (it was before)' if found['was'] else ''}")


def add_resume(parser: ArgumentParser) -> None:
    """``resume (--queue Q | --task NAME | --all) [--json]``"""
    parser.description = "End a pause. --all ends that of all tasks; pauses of single ones stay."
    _add_scope(parser)
    add_json(parser, "one JSON object: paused, was")


def do_resume(client: Client, args: Namespace) -> None:
    found = client.resume(queue=args.queue, task=args.task)
    if args.json:
        print(jsontext.line({"paused": False, "was": found["was"]}))
        return
    print(f"{_named(args)}: {'resumed' if found['was'] else 'was not paused'}")
    for other in client.status().get("paused", ()):
        print(text.clean(f"{other['text']} ({other['resume']})"))


def _named(args: Namespace) -> str:
    if args.queue:
        return f"queue {text.clean(args.queue)}"
    return f"task {text.clean(args.task)}" if args.task else "all tasks"

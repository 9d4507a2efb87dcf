"""``taskctl concurrency``: how many tasks of a queue run at once, for now."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from taskd.cli import outcome
from taskd.cli.output import jsontext, text
from taskd.cli.verbs.options import add_json, at_least_one, duration

if TYPE_CHECKING:
    from taskd.client.blocking import Client


def add_concurrency(parser: ArgumentParser) -> None:
    """``concurrency QUEUE (N | --reset) [--for TIME] [--why TEXT] [--json]``"""
    parser.description = (
        "Have so many tasks of a queue run at once, whatever taskd.toml says. What runs goes on. "
        "Kept over restarts and deploys, until --for is over or it is reset."
    )
    parser.add_argument("queue", metavar="QUEUE")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("tasks", metavar="N", nargs="?", type=at_least_one, help="so many at once")
    what.add_argument("--reset", action="store_true", help="as taskd.toml says")
    parser.add_argument(
        "--for",
        dest="seconds",
        metavar="TIME",
        type=duration,
        help="for so long: 90s, 10min, 2h, 1d",
    )
    parser.add_argument("--why", metavar="TEXT", help="a reason, shown wherever it is")
    add_json(parser, "one JSON object: queue, concurrency, was")


def do_concurrency(client: Client, args: Namespace) -> None:
    if args.reset and args.seconds is not None:
        raise outcome.UsageError("concurrency: --reset is at once, --for has no meaning with it")
    found = client.set_concurrency(args.queue, args.tasks, seconds=args.seconds, why=args.why)
    queue = client.status()["queues"].get(args.queue, {})
    if args.json:
        told = {"queue": args.queue, "concurrency": queue.get("concurrency"), "was": found["was"]}
        print(jsontext.line(told))
        return
    lasts = "" if args.seconds is None else f" for {text.duration(args.seconds)}"
    was = "" if found["was"] or not args.reset else " (it was not set)"
    says = ", as taskd.toml says" if args.reset else ""
    print(
        f"queue {text.clean(args.queue)}: {queue.get('concurrency', args.tasks)}{lasts}{says}{was}"
    )

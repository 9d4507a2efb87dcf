"""``taskctl cancel``, ``retry``, ``change`` and ``checkpoint``: what is done to tasks by hand."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from taskd.cli import outcome
from taskd.cli.output import jsontext
from taskd.cli.verbs import choosing, options
from taskd.errors import Refused

if TYPE_CHECKING:
    from taskd.client.blocking import Client

_CANCELLED = ("queued", "scheduled", "held", "running")
_RETRIED = ("held", "failed", "cancelled")
_CHANGED = ("queued", "scheduled", "held")


def add_cancel(parser: ArgumentParser) -> None:
    """``cancel (ID… | filter… | --all) [--at-most N] [--yes] [--json]``"""
    choosing.add(parser, _CANCELLED)


def do_cancel(client: Client, args: Namespace) -> int:
    def cancelled(task: int) -> str:
        answer = client.cancel(task)
        state, was = answer["state"], answer["was"]
        if state == "running":
            return f"{task} is asked to leave and will be cancelled"
        if state != was:
            return f"{task} {state}"
        return f"{task} had already {'been cancelled' if was == 'cancelled' else was}"

    if choosing.by_filter(args):
        act = lambda tasks, only: client.cancel_all(tasks, only=only)  # noqa: E731
        return choosing.do(client, args, _CANCELLED, "cancel", act)
    return _each(args, cancelled)


def add_retry(parser: ArgumentParser) -> None:
    """``retry [--from-start | --from STEP] (ID… | filter… | --all) …``"""
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--from-start", action="store_true", help="without what was saved, from the beginning"
    )
    where.add_argument(
        "--from",
        dest="step",
        metavar="STEP",
        help="without what this step, or loop, and all after it have saved (ctx.state stays)",
    )
    choosing.add(parser, _RETRIED)


def do_retry(client: Client, args: Namespace) -> int:
    if choosing.by_filter(args):
        return choosing.do(
            client,
            args,
            _RETRIED,
            "retry",
            lambda tasks, only: client.retry_all(
                tasks, only=only, from_start=args.from_start, step=args.step
            ),
        )

    def retried(task: int) -> str:
        answer = client.retry(task, from_start=args.from_start, step=args.step)
        return f"{task} {answer['state']}"

    return _each(args, retried)


def add_change(parser: ArgumentParser) -> None:
    """``change [--to-queue Q] [--to-priority N] [--at T | --delay T | --now] (ID… | filter…) …``"""
    parser.description = (
        "Move tasks that wait to another queue, another priority or another time. Tells what would "
        "be changed by a filter, and does it with --yes, or if you say so."
    )
    parser.add_argument("--to-queue", metavar="QUEUE", help="the queue to move them to")
    parser.add_argument(
        "--to-priority", metavar="N", type=int, help="their new priority: higher goes first"
    )
    due = parser.add_mutually_exclusive_group()
    due.add_argument("--now", action="store_true", help="they may start now")
    due.add_argument(
        "--delay", metavar="TIME", type=options.duration, help="not before so long from now: 2h"
    )
    due.add_argument(
        "--at",
        metavar="WHEN",
        type=options.moment,
        help="not before this time, with its offset from UTC: 2026-12-02T03:00+01:00",
    )
    choosing.add(parser, _CHANGED)


def do_change(client: Client, args: Namespace) -> int:
    delay = 0.0 if args.now else args.delay
    how: dict[str, Any] = {
        "queue": args.to_queue,
        "priority": args.to_priority,
        "delay": delay,
        "at": args.at,
    }
    if all(each is None for each in how.values()):
        raise outcome.UsageError(
            "change: to what? --to-queue, --to-priority, --now, --delay or --at"
        )

    def act(tasks: Sequence[int], only: str | None = None) -> dict[str, Any]:
        return client.change(tasks, only=only, **how)

    if choosing.by_filter(args):
        return choosing.do(client, args, _CHANGED, "change", act)

    def changed(task: int) -> str:
        for each in act([task])["refused"]:
            raise Refused(each["why"])
        return f"{task} changed"

    return _each(args, changed)


add_checkpoint = options.add_ids


def do_checkpoint(client: Client, args: Namespace) -> int:
    def asked(task: int) -> str:
        client.checkpoint(task)
        return f"{task} is asked to leave at its next safe point, and goes on from there"

    args.json = False
    return _each(args, asked)


def _each(args: Namespace, act: Callable[[int], str]) -> int:
    """Do all tasks, also if one of them is refused."""
    status, done, refused = outcome.DONE, 0, []
    for task in args.ids:
        try:
            said = act(task)
        except Refused as error:
            refused.append({"id": str(task), "why": str(error)})
            outcome.say(str(error))
            status = outcome.FAILED
        else:
            done += 1
            if not args.json:
                print(said)
    if args.json:
        found = {"found": len(args.ids), "done": done, "passed": 0, "refused": refused}
        print(jsontext.line(found))
    return status

"""``taskctl wait`` and ``taskctl follow``: until tasks have ended, silently or with bars."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from taskd.cli import outcome
from taskd.cli.output import jsontext, progress
from taskd.cli.verbs import options

if TYPE_CHECKING:
    from taskd.client.blocking import Client
    from taskd.client.records import TaskInfo


def add_wait(parser: ArgumentParser) -> None:
    """``wait [--timeout S] [--json] ID…``"""
    parser.add_argument(
        "--timeout", metavar="S", type=options.seconds, help="give up after so many seconds"
    )
    options.add_json(parser, "each task as a JSON object, one a line")
    options.add_ids(parser)


def do_wait(client: Client, args: Namespace) -> int:
    return ended(client, args.ids, as_json=args.json, tell=True, timeout=args.timeout)


def ended(
    client: Client,
    ids: Iterable[int],
    *,
    as_json: bool,
    tell: bool,
    timeout: float | None = None,
) -> int:
    """Wait for all of ``ids``; the exit status. ``tell``: say also of each success."""
    try:
        found = client.wait(list(dict.fromkeys(ids)), timeout)
    except TimeoutError:
        outcome.say("still running")
        return outcome.NOT_SUCCEEDED
    for task in found:
        if as_json:
            print(task_line(task))
        elif tell and task.state == "succeeded":
            print(f"{task.id} succeeded")
    return verdict(found)


def verdict(found: Iterable[TaskInfo]) -> int:
    """The exit status for tasks that were waited for; the reason of each failure to stderr:
    ``17 failed: ValueError: no such file``."""
    bad = [task for task in found if task.state != "succeeded"]
    for task in bad:
        cause = why(task)
        outcome.say(f"{task.id} {task.state}" + (f": {cause}" if cause else ""))
    return outcome.NOT_SUCCEEDED if bad else outcome.DONE


def why(task: TaskInfo) -> str:
    """The error it ended with, on one line, else the reason it shows, else nothing."""
    if task.error:
        message = str(task.error["message"]).strip().splitlines()
        return ": ".join([str(task.error["type"]), *message[:1]])
    return task.reason or ""


def task_line(task: TaskInfo) -> str:
    """A task as a line of JSON."""
    from taskd.client.jsonform import task_to_json

    return jsontext.line(task_to_json(task))


def add_follow(parser: ArgumentParser) -> None:
    """``follow [--json] ID…``"""
    options.add_json(parser, "each state change as a JSON object, one a line")
    options.add_ids(parser)


def do_follow(client: Client, args: Namespace) -> int:
    ids = list(dict.fromkeys(args.ids))
    if args.json:
        for event in client.follow(ids):
            print(jsontext.line(jsontext.only(jsontext.EVENT, event)), flush=True)
    else:
        _draw(client, ids)
    return verdict(client.task(task) for task in ids)


def _draw(client: Client, ids: Sequence[int]) -> None:
    """Draw bars on stdout until all tasks have ended."""
    bars = {}
    for task in map(client.task, ids):
        bar = progress.Bar(task.id, task.name, "queued")  # its events start with its first one
        bars[task.id] = progress.progressed(bar, task.progress) if task.progress else bar
    screen = progress.screen(sys.stdout, os.environ)
    for item in client.follow(ids, progress=True):
        about = item.get("progress")
        if about is None:
            changed = bars[item["task"]] = progress.moved(bars[item["task"]], item)
            screen.event(list(bars.values()), changed)
        else:
            changed = bars[about["task"]] = progress.progressed(bars[about["task"]], about)
            screen.progress(list(bars.values()), changed)

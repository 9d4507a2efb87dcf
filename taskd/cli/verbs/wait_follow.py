"""``taskctl wait`` and ``taskctl follow``: until tasks have ended, silently or with bars."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from taskd.cli import outcome
from taskd.cli.output import jsontext, progress
from taskd.cli.verbs import options

if TYPE_CHECKING:
    from taskd.cli.output.progress import Bar
    from taskd.client.blocking import Client
    from taskd.client.records import TaskInfo


def add_wait(parser: ArgumentParser) -> None:
    """``wait [--timeout S] [--json] ID…``"""
    parser.add_argument(
        "--timeout", metavar="S", type=options.seconds, help="give up after so many seconds"
    )
    options.add_json(parser, "each task as a JSON object, one a line")
    options.add_ids(parser)


def add_follow(parser: ArgumentParser) -> None:
    """``follow [--json] ID…``"""
    options.add_json(parser, "each state change as a JSON object, one a line")
    options.add_ids(parser)


def do_wait(client: Client, args: Namespace) -> int:
    return ended(client, args.ids, as_json=args.json, tell=True, timeout=args.timeout)


def ended(
    client: Client,
    ids: Sequence[int],
    *,
    as_json: bool,
    tell: bool,
    timeout: float | None = None,
) -> int:
    """Wait for all of ``ids``; the exit status. ``tell``: say also of each success."""
    try:
        found = client.wait(unique(ids), timeout)
    except TimeoutError:
        outcome.say("taskctl", "still running")
        return outcome.NOT_SUCCEEDED
    for task in found:
        if as_json:
            print(task_line(task))
        elif tell and task.state == "succeeded":
            print(f"{task.id} succeeded")
    return verdict(found)


def verdict(found: Iterable[TaskInfo]) -> int:
    """The exit status for tasks that were waited for; the reason of each failure to stderr."""
    bad = [task for task in found if task.state != "succeeded"]
    for task in bad:
        outcome.say("taskctl", ending(task))
    return outcome.NOT_SUCCEEDED if bad else outcome.DONE


def ending(task: TaskInfo) -> str:
    """How it ended, on one line: ``17 failed: ValueError: no such file``."""
    cause = why(task)
    return f"{task.id} {task.state}" + (f": {cause}" if cause else "")


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


def unique(ids: Iterable[int]) -> list[int]:
    """Without repeats, in the order given."""
    return list(dict.fromkeys(ids))


def do_follow(client: Client, args: Namespace) -> int:
    ids = unique(args.ids)
    if args.json:
        for event in client.follow(ids):
            print(jsontext.line(jsontext.only(jsontext.EVENT, event)), flush=True)
    else:
        _show(client, ids)
    return verdict(client.task(task) for task in ids)


def _show(client: Client, ids: Sequence[int]) -> None:
    """Draw on stdout until all have ended."""
    bars = {task: first_bar(client.task(task)) for task in ids}
    screen = progress.screen(sys.stdout, os.environ)
    for item in client.follow(ids, progress=True):
        feed(item, bars, screen)


def first_bar(task: TaskInfo) -> Bar:
    """A task's bar before its events have come: these start with its first one."""
    bar = progress.Bar(task.id, task.name, "queued")
    return progress.progressed(bar, task.progress) if task.progress else bar


def feed(item: Mapping[str, Any], bars: dict[int, Bar], screen: progress.Screen) -> None:
    """One item of a follow stream, to the bar that it is about and to the screen."""
    about = item.get("progress")
    if about is None:
        changed = bars[item["task"]] = progress.moved(bars[item["task"]], item)
        screen.event(list(bars.values()), changed)
    else:
        changed = bars[about["task"]] = progress.progressed(bars[about["task"]], about)
        screen.progress(list(bars.values()), changed)

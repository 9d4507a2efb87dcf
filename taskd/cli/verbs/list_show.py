"""``taskctl list`` and ``taskctl show``: tasks as a table, and one with all its facts."""

from __future__ import annotations

import os
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from taskd.cli.output import text
from taskd.cli.output.progress import Bar, progressed
from taskd.cli.output.text import Column, Look
from taskd.cli.verbs import options, wait_follow
from taskd.model.task import State

if TYPE_CHECKING:
    from taskd.client.blocking import Client
    from taskd.client.records import TaskInfo

_TASK = (
    Column("ID", right=True),
    Column("NAME"),
    Column("STATE"),
    Column("QUEUE"),
    Column("REVISION"),
    Column("SUBMITTED", right=True),
    Column("TOOK", right=True),
    Column("DONE", right=True),
    Column("NOTE"),
)


def add_list(parser: ArgumentParser) -> None:
    """``list [--state S] [--queue Q] [--name N] [--limit N] [--json]``"""
    parser.add_argument(
        "--state", choices=[state.value for state in State], help="only tasks in this state"
    )
    parser.add_argument("--queue", help="only tasks of this queue")
    parser.add_argument("--name", help="only tasks of this name")
    parser.add_argument(
        "--limit", type=options.at_least_one, default=100, help="at most so many (default: 100)"
    )
    options.add_json(parser, "each task as a JSON object, one a line")


def add_show(parser: ArgumentParser) -> None:
    """``show [--json] ID…``"""
    options.add_json(parser, "each task as a JSON object, one a line")
    options.add_ids(parser)


def do_list(client: Client, args: Namespace) -> None:
    narrow = {"state": args.state, "queue": args.queue, "name": args.name, "limit": args.limit}
    found = client.tasks(**narrow, results=args.json)
    if args.json:
        for task in found:
            print(wait_follow.task_line(_with_result(client, task)))
        return
    for line in table(found, time.time(), Look.of(sys.stdout, os.environ)):
        print(line)


def _with_result(client: Client, task: TaskInfo) -> TaskInfo:
    """A daemon that is too old leaves results out of a list."""
    if task.state == State.SUCCEEDED and task.encoded_result is None:
        return client.task(task.id)
    return task


def table(tasks: Sequence[TaskInfo], now: float, look: Look) -> list[str]:
    """The lines of a list; ``now`` in Unix seconds."""
    return text.table(_TASK, [_row(task, now) for task in tasks], look.width)


def _row(task: TaskInfo, now: float) -> list[str]:
    bar = _bar(task)
    return [
        str(task.id),
        text.cut(text.clean(task.name), 40),
        task.shown,
        task.queue,
        task.revision or "-",
        text.ago(task.submitted, now),
        _took(task, now),
        _done(bar) or bar.counted or "-",
        wait_follow.why(task) or bar.note,
    ]


def _bar(task: TaskInfo) -> Bar:
    bar = Bar(task.id, task.name, task.state)
    return progressed(bar, task.progress) if task.progress else bar


def _done(bar: Bar) -> str:
    """A part only where there was progress: 100 % of nothing tells nobody anything."""
    return "" if bar.done is None else bar.percent


def _took(task: TaskInfo, now: float) -> str:
    """How long it ran; of an older daemon, which does not say it, from its start to its end."""
    if task.ran is not None:
        return text.duration(task.ran)
    until = now if task.state == State.RUNNING else task.ended
    return "-" if task.started is None or until is None else text.duration(until - task.started)


def do_show(client: Client, args: Namespace) -> None:
    look = Look.of(sys.stdout, os.environ)
    for number, task in enumerate(map(client.task, wait_follow.unique(args.ids))):
        if args.json:
            print(wait_follow.task_line(task))
            continue
        for line in [""] * bool(number) + page(task, time.time(), look):
            print(line)


def page(task: TaskInfo, now: float, look: Look) -> list[str]:
    """All facts of one task, those that are not there left out."""
    facts = [*_what(task, look), *_when(task, now), *_how(task)]
    width = max(len(name) for name, _ in facts)
    return [
        *(f"{name.ljust(width)}  {value}" for name, value in facts if value),
        *_traceback(task),
    ]


def _what(task: TaskInfo, look: Look) -> list[tuple[str, str]]:
    return [
        ("id", str(task.id)),
        ("name", text.clean(task.name)),
        ("state", text.coloured(task.shown, task.shown, look)),
        ("queue", text.clean(task.queue)),
        ("priority", str(task.priority or "")),
        ("key", text.clean(repr(task.key)) if task.key is not None else ""),
        ("attempt", str(task.attempt or "")),
        ("revision", text.clean(task.revision or "")),
    ]


def _when(task: TaskInfo, now: float) -> list[tuple[str, str]]:
    times = (
        ("submitted", task.submitted),
        ("started", task.started),
        ("ended", task.ended),
        ("not before", task.run_at),
    )
    shown = [(name, f"{_clock(at)} ({text.ago(at, now)})") for name, at in times if at is not None]
    so_far = "" if task.state != State.RUNNING else " so far"
    return [*shown, ("took", _took(task, now) + so_far if task.started else "")]


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _how(task: TaskInfo) -> list[tuple[str, str]]:
    bar = _bar(task)
    done = " ".join(part for part in (_done(bar), bar.counted, text.clean(bar.note)) if part)
    return [
        ("done", done),
        ("reason", "" if task.error else text.clean(task.reason or "")),
        ("error", text.clean(wait_follow.why(task)) if task.error else ""),
        ("result", _result(task)),
    ]


def _result(task: TaskInfo) -> str:
    """As JSON, which every shell user can read; a task that did not succeed has none."""
    if task.state != State.SUCCEEDED:
        return ""
    import json

    from taskd.client.jsonform import to_json

    return json.dumps(to_json(task.result), ensure_ascii=True)


def _traceback(task: TaskInfo) -> list[str]:
    if not task.error or not task.error.get("traceback"):
        return []
    lines = str(task.error["traceback"]).rstrip().splitlines()
    return ["", *(text.clean(line.expandtabs()) for line in lines)]

"""``taskctl list`` and ``taskctl show``: tasks as a table, and one with all its facts."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
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


def do_list(client: Client, args: Namespace) -> None:
    narrow = {"state": args.state, "queue": args.queue, "name": args.name, "limit": args.limit}
    found = client.tasks(**narrow, results=args.json)
    if not args.json:
        rows = [_row(task, time.time()) for task in found]
        lines = text.table(_TASK, rows, Look.of().width)
        print("".join(f"{line}\n" for line in lines), end="")
        return
    for task in found:
        print(wait_follow.task_line(task))


def _row(task: TaskInfo, now: float) -> list[str]:
    bar = _bar(task)
    return [
        str(task.id),
        text.cut(text.clean(task.name), 40),
        task.shown,
        task.queue,
        task.revision or "-",
        text.ago(task.submitted, now),
        _took(task),
        _done(bar) or bar.counted or "-",
        wait_follow.why(task) or bar.note,
    ]


def _bar(task: TaskInfo) -> Bar:
    bar = Bar(task.id, task.name, task.state)
    return progressed(bar, task.progress) if task.progress else bar


def _done(bar: Bar) -> str:
    """Per cent done; empty for a task that has reported no progress."""
    return "" if bar.done is None else bar.percent


def _took(task: TaskInfo) -> str:
    """How long it ran, without the time in which it waited between its attempts."""
    return "-" if task.ran is None else text.duration(task.ran)


def add_show(parser: ArgumentParser) -> None:
    """``show [--json] ID…``"""
    options.add_json(parser, "each task as a JSON object, one a line")
    options.add_ids(parser)


def do_show(client: Client, args: Namespace) -> None:
    look = Look.of()
    for number, task in enumerate(map(client.task, dict.fromkeys(args.ids))):
        if args.json:
            print(wait_follow.task_line(task))
        else:
            print(*[""] * bool(number), *page(task, time.time(), look), sep="\n")


def page(task: TaskInfo, now: float, look: Look) -> list[str]:
    """All facts of one task, those that are not there left out."""
    facts = _facts(task, now, look)
    width = max(len(name) for name, _ in facts)
    lines = [f"{name.ljust(width)}  {value}" for name, value in facts if value]
    if task.error and task.error.get("traceback"):
        traceback = str(task.error["traceback"]).rstrip().splitlines()
        lines += ["", *(text.clean(line.expandtabs()) for line in traceback)]
    return lines


def _facts(task: TaskInfo, now: float, look: Look) -> list[tuple[str, str]]:
    """Each fact's name and text, which is empty where there is none."""
    bar = _bar(task)
    times = [
        (name, f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(at))} ({text.ago(at, now)})")
        for name, at in (
            ("submitted", task.submitted),
            ("started", task.started),
            ("ended", task.ended),
            ("not before", task.run_at),
        )
        if at is not None
    ]
    so_far = " so far" if task.state == State.RUNNING else ""
    done = (_done(bar), bar.counted, text.clean(bar.note))
    return [
        ("id", str(task.id)),
        ("name", text.clean(task.name)),
        ("state", text.coloured(task.shown, task.shown, look)),
        ("queue", text.clean(task.queue)),
        ("priority", str(task.priority or "")),
        ("key", text.clean(repr(task.key)) if task.key is not None else ""),
        ("attempt", str(task.attempt or "")),
        ("revision", text.clean(task.revision or "")),
        *times,
        ("took", _took(task) + so_far if task.started else ""),
        ("done", " ".join(part for part in done if part)),
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

"""The verbs about tasks by their ids.

``show`` tells all facts; ``wait`` and ``follow`` last until tasks have ended,
silently or with bars.
"""

from __future__ import annotations

import os
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from typing import TYPE_CHECKING

from taskd.cli import outcome
from taskd.cli.output import attempts, jsontext, progress, text
from taskd.cli.output.text import Look
from taskd.cli.verbs import options
from taskd.errors import Refused, UnknownTask
from taskd.model.task import State

if TYPE_CHECKING:
    from taskd.client.blocking import Client, TaskHandle
    from taskd.client.records import AttemptInfo, TaskInfo


def _bar(task: TaskInfo) -> progress.Bar:
    bar = progress.Bar(task.id, task.name, task.state)
    return progress.progressed(bar, task.progress) if task.progress else bar


def percent(task: TaskInfo) -> str:
    """Per cent done; empty for a task that has reported no progress."""
    bar = _bar(task)
    return "" if bar.done is None else bar.percent


def counted(task: TaskInfo) -> str:
    """How many of how many are done."""
    return _bar(task).counted


def took(task: TaskInfo) -> str:
    """How long it ran, without the time in which it waited between its attempts."""
    return "-" if task.ran is None else text.duration(task.ran)


def add_show(parser: ArgumentParser) -> None:
    """``show [--json] ID…``"""
    options.add_json(parser, "each task as a JSON object, one a line")
    options.add_ids(parser)


def do_show(client: Client, args: Namespace) -> None:
    look = Look.of()
    for number, task in enumerate(map(client.task, dict.fromkeys(args.ids))):
        tries = _attempts(client, task.id)
        if args.json:
            print(task_line(task, tries))
        else:
            print(*[""] * bool(number), *page(task, tries, time.time(), look), sep="\n")


def _attempts(client: Client, task: int) -> list[AttemptInfo]:
    """None of a daemon of 0.2, which keeps none."""
    try:
        return client.attempts(task)
    except Refused:
        return []


def page(task: TaskInfo, tries: list[AttemptInfo], now: float, look: Look) -> list[str]:
    """All facts of one task, those that are not there left out."""
    facts = _facts(task, tries, now, look)
    width = max(len(name) for name, value in facts if value)
    lines = [f"{name.ljust(width)}  {value}" for name, value in facts if value]
    if table := attempts.table(tries, now, look.width):
        lines += ["", *table]
    if task.error and task.error.get("traceback"):
        traceback = str(task.error["traceback"]).rstrip().splitlines()
        lines += ["", *(text.clean(line.expandtabs()) for line in traceback)]
    return lines


def _facts(
    task: TaskInfo, tries: list[AttemptInfo], now: float, look: Look
) -> list[tuple[str, str]]:
    """Each fact's name and text, which is empty where there is none."""
    bar = _bar(task)
    times = [
        (name, f"{attempts.when(at)} ({text.ago(at, now)})")
        for name, at in (
            ("submitted", task.submitted),
            ("started", task.started),
            ("ended", task.ended),
            ("expires", task.expires),
        )
        if at is not None
    ]
    so_far = " so far" if task.state == State.RUNNING else ""
    done = (percent(task), bar.counted, text.clean(bar.note))
    result = ""
    if task.state == State.SUCCEEDED:  # as JSON, which every shell user can read
        import json

        from taskd.client.jsonform import to_json

        result = json.dumps(to_json(task.result), ensure_ascii=True)
    return [
        ("id", str(task.id)),
        ("name", text.clean(task.name)),
        ("arguments", text.clean(task.arguments or "")),
        ("owner", options.user_name(task.owner)),
        ("state", text.coloured(task.shown, task.shown, look)),
        ("queue", text.clean(task.queue)),
        ("priority", str(task.priority or "")),
        ("key", text.clean(repr(task.key)) if task.key is not None else ""),
        ("attempt", str(task.attempt or "")),
        ("revision", text.clean(task.revision or "")),
        *times,
        ("next try" if tries else "not before", attempts.next_try(task, tries, now)),
        ("parent", str(task.parent or "")),
        ("after", after(task)),
        ("retries", attempts.retries(task.retries)),
        ("waited", waited(task)),
        ("took", took(task) + so_far if task.started else ""),
        ("timeout", _timeout(task)),
        ("process", _process(task)),
        ("log", text.clean(task.log or "")),
        ("done", " ".join(part for part in done if part)),
        ("reason", "" if task.error else text.clean(task.reason or "")),
        ("error", text.clean(_whole_why(task)) if task.error else ""),
        ("result", result),
    ]


def after(task: TaskInfo) -> str:
    """The tasks that it comes after, with their states."""
    named = [f"{each['task']} ({each['state'] or 'removed'})" for each in task.after or ()]
    how = f"; if one fails: {task.if_failed}" if named and task.if_failed != "hold" else ""
    return ", ".join(named) + how


def waited(task: TaskInfo) -> str:
    """From the submission to the first start."""
    if task.started is None or task.submitted is None or task.started - task.submitted < 1:
        return ""
    return text.duration(task.started - task.submitted)


def _timeout(task: TaskInfo) -> str:
    if task.timeout is None:
        return ""
    used, limit = (text.duration(task.timeout[each]) for each in ("used", "limit"))
    return f"{limit}, {used} of it used"


def _process(task: TaskInfo) -> str:
    if task.pid is None:
        return ""
    takes = "" if task.memory is None else f", {task.memory / (1 << 20):.0f} MiB"
    return f"{task.pid}{takes}"


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


def _whole_why(task: TaskInfo) -> str:
    """The error it ended with, and why it was not tried again."""
    cause = why(task)
    end = (task.reason or "").rpartition("; not tried again: ")
    return f"{cause}; {end[1][2:]}{end[2]}" if task.state == State.FAILED and end[1] else cause


def task_line(task: TaskInfo, tries: list[AttemptInfo] | None = None) -> str:
    """A task as a line of JSON; with its attempts, if they are given."""
    from taskd.client.jsonform import attempt_to_json, task_to_json

    found = task_to_json(task)
    if tries is not None:
        found["attempts"] = [attempt_to_json(each) for each in tries]
    return jsontext.line(found)


def submitted_line(handle: TaskHandle) -> str:
    """A task that was just submitted, as a line of JSON; by its id alone if it was removed."""
    from taskd.client.jsonform import task_to_json

    how = {"created": handle.created, "replaced": handle.replaced}
    try:
        return jsontext.line(task_to_json(handle.status()) | how)
    except UnknownTask:
        return jsontext.line({"id": str(handle.id), "state": "removed"} | how)


def add_follow(parser: ArgumentParser) -> None:
    """``follow [--json] ID…``"""
    options.add_json(parser, "each state change as a JSON object, one a line")
    options.add_ids(parser)


def do_follow(client: Client, args: Namespace) -> int:
    ids = list(dict.fromkeys(args.ids))
    if args.json:
        for event in client.follow(ids):
            print(jsontext.line(jsontext.only(jsontext.EVENT, event)), flush=True)
    else:  # a task's events start with its first one, so that its bar is queued before
        bars = {task.id: _bar(task)._replace(state="queued") for task in map(client.task, ids)}
        screen = progress.screen(sys.stdout, os.environ)
        for item in client.follow(ids, progress=True):
            about = item.get("progress")
            if about is None:
                changed = bars[item["task"]] = progress.moved(bars[item["task"]], item)
                screen.event(list(bars.values()), changed)
            else:
                changed = bars[about["task"]] = progress.progressed(bars[about["task"]], about)
                screen.progress(list(bars.values()), changed)
    return verdict(client.task(task) for task in ids)

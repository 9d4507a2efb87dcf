"""``taskctl drain``: what a stop would interrupt; have it interrupted; empty a revision sooner."""

from __future__ import annotations

import os
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from taskd.cli.outcome import UsageError
from taskd.cli.output import jsontext, text
from taskd.cli.output.text import Column, Look
from taskd.cli.verbs.options import add_json
from taskd.model.task import COMMAND

if TYPE_CHECKING:
    from taskd.client.blocking import Client

_TASK = (
    Column("TASK", right=True),
    Column("NAME"),
    Column("REVISION"),
    Column("RUNNING", right=True),
    Column("SAVED", right=True),
    Column("WHEN STOPPED"),
)

_SHOWN = 20
"""Tasks that a line names at most."""


def add_drain(parser: ArgumentParser) -> None:
    """``drain [--json]``, ``drain --revision R [--checkpoint|--now]``, ``drain --unit U``"""
    parser.description = (
        "Without options, show which running tasks a stop of the daemon would interrupt, and what "
        "becomes of them; nothing is changed."
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--revision",
        metavar="R",
        help="a revision that drains (see revisions): its name, its path or the end of that",
    )
    what.add_argument(
        "--unit",
        metavar="UNIT",
        help="stop the daemon as the job of its unit says: for ExecStop=. In a restart, tasks that "
        "do not leave in time go on; else they are ended",
    )
    how = parser.add_mutually_exclusive_group()
    for name, does in (
        ("checkpoint", "have its tasks leave at their next safe point, to continue elsewhere"),
        ("now", "end its tasks; they continue elsewhere from what they saved"),
    ):
        how.add_argument(f"--{name}", dest="how", action="store_const", const=name, help=does)
    parser.add_argument("--user", action="store_true", help="UNIT is one of your own")
    add_json(parser, "one JSON object")


def do_drain(client: Client, args: Namespace) -> None:
    if args.how and args.revision is None:
        raise UsageError(f"--{args.how} is for --revision R")
    if args.user and args.unit is None:
        raise UsageError("--user is for --unit UNIT")
    if args.revision is not None:
        _drain_revision(client, args)
    elif args.unit is not None:
        _stop(client, args)
    elif args.json:
        found = client.shutdown(plan=True)
        fields = ("task", "name", "revision", "started", "saved")
        tasks = [jsontext.only(fields, task) for task in found["tasks"]]
        print(jsontext.line({"tasks": tasks, "stop_timeout": found["limit"]}))
    else:
        print(*page(client.shutdown(plan=True), time.time(), Look.of().width), sep="\n")


def _drain_revision(client: Client, args: Namespace) -> None:
    word = args.revision
    if "/" in word and os.path.isdir(word):
        word = os.path.realpath(word)
    answer = client.drain(word, args.how or "finish")
    if args.json:
        print(jsontext.line({"revision": args.revision, **answer}))
        return
    did = {"checkpoint": "asked to leave at the next safe point", "now": "ended"}.get(args.how)
    asked = f", {answer['asked']} {did}" if did else ""
    print(f"{text.clean(args.revision)} drains: {answer['running']} running{asked}")


def _stop(client: Client, args: Namespace) -> None:
    from taskd.cli.verbs import main_process

    with main_process.ending_with_it(os.environ):
        client.status()  # one that does not answer is not waited for: systemd goes on with a signal
        for_good = main_process.is_for_good(args.unit, args.user)
        answer = client.shutdown(keep=None if for_good is None else not for_good)
    if args.json:
        ids = {name: [str(task) for task in answer[name]] for name in ("ended", "kept")}
        print(jsontext.line({"asked": answer["asked"], **ids}))
    else:
        print(stopped(answer))


def stopped(answer: Mapping[str, Any]) -> str:
    """How a stop went, in one line."""
    (ended, which_ended), (kept, which_kept) = _told(answer, "ended"), _told(answer, "kept")
    parts = [f"{max(0, answer['asked'] - ended - kept)} left at a safe point"]
    were, go = ("was" if ended == 1 else "were"), ("goes" if kept == 1 else "go")
    parts += [f"{ended} did not and {were} ended: {which_ended}"] * bool(ended)
    parts += [f"{kept} did not and {go} on: {which_kept}"] * bool(kept)
    return f"tasks asked to leave: {answer['asked']}; " + ", ".join(parts)


def _told(answer: Mapping[str, Any], name: str) -> tuple[int, str]:
    """How many tasks a list of the answer stands for, and the first of them by id."""
    shown = answer[name][:_SHOWN]
    number: int = answer["counts"][name]
    more = f" and {number - len(shown)} more" if number > len(shown) else ""
    return number, ", ".join(map(str, shown)) + more


def page(found: Mapping[str, Any], now: float, width: int) -> list[str]:
    """What a stop would interrupt, in lines for people; ``now`` in Unix seconds."""
    tasks = found["tasks"]
    if not tasks:
        return ["a stop would interrupt nothing: no task is running"]
    number = found["running"]
    many = "1 task" if number == 1 else f"{number} tasks"
    return [
        f"a stop would interrupt {many}, and wait "
        f"{text.duration(found['limit'])} at most for all to leave",
        "",
        *text.table(_TASK, [_row(task, now) for task in tasks], width),
        *[f"and {number - len(tasks)} more"] * (number > len(tasks)),
    ]


def _row(task: Mapping[str, Any], now: float) -> list[str]:
    started = task["started"]
    if task["name"] == COMMAND:
        becomes = "gets SIGTERM, and is run again after the next start"
    elif task["saved"] is None:
        becomes = "has saved nothing: begins anew, unless it comes to a safe point"
    else:
        becomes = "leaves at its next safe point, and goes on from there"
    return [
        str(task["task"]),
        task["name"],
        task["revision"] or "-",
        "-" if started is None else text.duration(now - started),
        text.ago(task["saved"], now),
        becomes,
    ]

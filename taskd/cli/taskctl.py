"""``taskctl``: asks a running daemon, on the command line.

This module knows the verbs and the options they share. Exit codes are in ``outcome``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import taskd
from taskd.cli import outcome, verb
from taskd.cli.verb import Verb

if TYPE_CHECKING:
    import argparse

PROGRAM = "taskctl"

VERBS = {
    "status": Verb("verbs.status", "show what the daemon is doing"),
    "submit": Verb("verbs.submit", "queue a task of the app"),
    "run": Verb("verbs.submit", "queue any program"),
    "list": Verb("verbs.listing", "list tasks, newest first"),
    "show": Verb("verbs.tasks", "show all there is to know of tasks"),
    "why": Verb("verbs.why", "say what a task waits for, and what to do"),
    "wait": Verb("verbs.tasks", "wait until tasks have ended"),
    "follow": Verb("verbs.tasks", "show tasks' progress until they have ended"),
    "logs": Verb("verbs.logs", "show what a task wrote to its output"),
    "cancel": Verb("verbs.changing", "cancel tasks"),
    "retry": Verb("verbs.changing", "queue held, failed or cancelled tasks again"),
    "change": Verb("verbs.changing", "move waiting tasks to a queue, a priority or a time"),
    "checkpoint": Verb("verbs.changing", "have running tasks leave at their next safe point"),
    "pause": Verb("verbs.pause", "start nothing fresh of a queue, a task, or at all"),
    "resume": Verb("verbs.pause", "end a pause"),
    "concurrency": Verb("verbs.concurrency", "set for now how many tasks of a queue run at once"),
    "gc": Verb("verbs.gc", "remove tasks that are over before their time"),
    "schedules": Verb("verbs.schedules", "list the schedules; pause, resume or run one now"),
    "revisions": Verb("verbs.revisions", "list the revisions that live, and what was refused"),
    "drain": Verb("verbs.drain", "show what a stop would interrupt; make a revision empty sooner"),
    "deploy": Verb(
        "verbs.deploy", "deploy a release: switch the symlink to it, back if it is refused"
    ),
    "reload": Verb("verbs.deploy", "deploy the release that the symlink names now"),
    "doctor": Verb("verbs.status", "say what is in force here, what is not, and why"),
    "rollback": Verb("verbs.deploy", "deploy the release before this one again"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """The console script; returns the exit status."""
    return outcome.guarded(PROGRAM, lambda: _main(list(sys.argv[1:] if argv is None else argv)))


def _main(words: list[str]) -> int | None:
    program = None  # the words after the first ``--``, which are not ours
    if "--" in words:
        at = words.index("--")
        words, program = words[:at], words[at + 1 :]
    args = parser(words).parse_args(words)
    if program is not None and args.verb != "run":
        raise outcome.UsageError(f"'--' has no meaning for {args.verb}")
    args.program = program
    from taskd.client.blocking import Client

    with Client(args.socket) as client:
        status: int | None = args.verb_runs(client, args)
    return status


def parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser, with the arguments of those verbs alone that are among ``words``."""
    import argparse

    whole = argparse.ArgumentParser(
        PROGRAM,
        description="Ask a running taskd.",
        epilog="Exit status: 0 done, 1 refused or failed, 2 usage, 3 no daemon reachable, "
        "4 a waited-for task did not succeed.",
    )
    whole.add_argument("--version", action="version", version=f"{PROGRAM} {taskd.__version__}")
    _add_socket(whole, None)
    verbs = whole.add_subparsers(title="verbs", dest="verb", metavar="VERB", required=True)
    for name, each in VERBS.items():
        one = verbs.add_parser(name, help=each.summary, description=f"{each.summary.capitalize()}.")
        if name in words:
            _add_socket(one, argparse.SUPPRESS)
            verb.load(each, name, one)
    return whole


def _add_socket(to: argparse.ArgumentParser, default: str | None) -> None:
    to.add_argument(
        "--socket",
        metavar="PATH",
        default=default,
        help="the daemon's socket, or the directory of its sockets (default: $TASKD_SOCKET, "
        "else the user's own daemon's, else the system's)",
    )

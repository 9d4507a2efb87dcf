"""``taskctl``: asks a running daemon, on the command line.

This module knows the verbs and the options they share. Each verb family is a module of its own
that is imported only when its verb is on the command line, so that a call starts fast. Exit codes
are in ``outcome``. For a verb ``x`` its module has ``add_x(parser)``: it adds the arguments and
names the function that runs the verb with a client and the parsed arguments.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import taskd
from taskd.cli import outcome
from taskd.record import Record

if TYPE_CHECKING:
    import argparse

PROGRAM = "taskctl"


class Verb(Record):
    """Where a verb is, and what it does in a few words."""

    module: str
    summary: str


VERBS = {
    "status": Verb("status", "show what the daemon is doing"),
    "submit": Verb("submit", "queue a task of the app"),
    "run": Verb("submit", "queue any program"),
    "list": Verb("list_show", "list tasks, newest first"),
    "show": Verb("list_show", "show all there is to know of tasks"),
    "wait": Verb("wait_follow", "wait until tasks have ended"),
    "follow": Verb("wait_follow", "show tasks' progress until they have ended"),
    "logs": Verb("logs", "show what a task wrote to its output"),
    "cancel": Verb("cancel_retry", "cancel tasks"),
    "retry": Verb("cancel_retry", "queue held, failed or cancelled tasks again"),
    "revisions": Verb("revisions", "list the revisions that live, and what was refused"),
    "drain": Verb("drain", "show what a stop would interrupt; make a revision empty sooner"),
    "deploy": Verb("deploy", "deploy a release: switch the symlink to it, back if it is refused"),
    "reload": Verb("deploy", "deploy the release that the symlink names now"),
    "doctor": Verb("doctor", "say what is in force here, what is not, and why"),
    "rollback": Verb("deploy", "deploy the release before this one again"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """The console script; returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    return outcome.guarded(PROGRAM, lambda: _main(words))


def _main(words: list[str]) -> int | None:
    words, program = _split(words)
    args = parser(words).parse_args(words)
    if program is not None and args.verb != "run":
        raise outcome.UsageError(f"'--' has no meaning for {args.verb}")
    args.program = program
    from taskd.client.blocking import Client

    with Client(args.socket) as client:
        status: int | None = args.verb_runs(client, args)
    return status


def _split(words: list[str]) -> tuple[list[str], list[str] | None]:
    """What stands after the first ``--`` belongs to a program and is none of ours."""
    if "--" not in words:
        return words, None
    at = words.index("--")
    return words[:at], words[at + 1 :]


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
    for name, verb in VERBS.items():
        one = verbs.add_parser(name, help=verb.summary, description=f"{verb.summary.capitalize()}.")
        if name in words:
            _add_socket(one, argparse.SUPPRESS)
            _add(name, verb, one)
    return whole


def _add_socket(to: argparse.ArgumentParser, default: str | None) -> None:
    to.add_argument(
        "--socket",
        metavar="PATH",
        default=default,
        help="the daemon's socket, or the directory of its sockets (default: $TASKD_SOCKET, "
        "else the user's own daemon's, else the system's)",
    )


def _add(name: str, verb: Verb, to: argparse.ArgumentParser) -> None:
    from importlib import import_module

    getattr(import_module(f"taskd.cli.verbs.{verb.module}"), f"add_{name}")(to)

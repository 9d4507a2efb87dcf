"""``taskctl submit`` and ``taskctl run``: queue a task, print its id, and wait if asked to."""

from __future__ import annotations

import os
from argparse import REMAINDER, ArgumentParser, Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from taskd.cli import options, outcome, watch
from taskd.model.task import OnDeploy

if TYPE_CHECKING:
    from taskd.client.blocking import Client


def add_submit(parser: ArgumentParser) -> None:
    """``submit [options] NAME key=value …``"""
    _add_common(parser)
    parser.add_argument("name", metavar="NAME", help="the task's name in the app")
    parser.add_argument(
        "arguments",
        metavar="key=value",
        nargs=REMAINDER,
        help="an argument; a value that is JSON is taken as that, any other as a text",
    )
    parser.set_defaults(verb_runs=_submit)


def add_run(parser: ArgumentParser) -> None:
    """``run [options] -- CMD ARGS…``"""
    _add_common(parser)
    parser.add_argument(
        "--on-deploy",
        choices=[each.value for each in OnDeploy],
        default=None,
        help="at a deploy: run on (finish, the default), or get SIGTERM, leave with exit status "
        "75 and be continued under the new revision (checkpoint)",
    )
    parser.add_argument(
        "command", metavar="-- CMD ARGS", nargs=REMAINDER, help="the program and its arguments"
    )
    parser.set_defaults(verb_runs=_run)


def _add_common(parser: ArgumentParser) -> None:
    parser.add_argument("--key", help="while a task with this key lives, it is that task again")
    parser.add_argument("--priority", type=int, default=0, help="higher goes first (default: 0)")
    parser.add_argument("--queue", help="the queue (default: the task's own)")
    parser.add_argument("--wait", action="store_true", help="wait until the task has ended")
    options.add_json(parser, "the task as one JSON object (with --wait: as it ended)")


def _submit(client: Client, args: Namespace) -> int:
    return _queue(client, args, args.name, arguments(args.arguments), None)


def _run(client: Client, args: Namespace) -> int:
    argv = command(args.command, args.program)
    given = {"argv": argv, "cwd": os.getcwd(), "env": None}
    chosen = {"on_deploy": args.on_deploy} if args.on_deploy else None
    return _queue(client, args, "command", given, chosen)


def _queue(
    client: Client,
    args: Namespace,
    name: str,
    given: dict[str, Any],
    chosen: dict[str, Any] | None,
) -> int:
    task = client.submit(
        name, given, key=args.key, priority=args.priority, queue=args.queue, options=chosen
    )
    if not args.json:
        print(task.id, flush=True)  # before the waiting: a script may want the id at once
    if args.wait:
        return watch.ended(client, [task.id], as_json=args.json, tell=False)
    if args.json:
        print(watch.task_line(task.status()))
    return outcome.DONE


def command(before: Sequence[str], after: Sequence[str] | None) -> list[str]:
    """The program and its arguments; ``before`` and ``after`` the first ``--``."""
    argv = [*before, *(["--"] if before and after is not None else []), *(after or [])]
    if not argv:
        raise outcome.UsageError("run: which program? taskctl run [options] -- CMD ARGS…")
    return argv


def arguments(words: Sequence[str]) -> dict[str, Any]:
    """``key=value`` words as arguments. Raises UsageError for one that is not that."""
    from taskd.client.jsonform import from_argument

    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if word.startswith("-"):
            raise outcome.UsageError(f"submit: {word}: options stand before the task's name")
        if not equals or not name.isidentifier():
            raise outcome.UsageError(f"submit: {word!r} is not of the form key=value")
        if name in found:
            raise outcome.UsageError(f"submit: the argument {name!r} is given twice")
        found[name] = from_argument(value)
    return found

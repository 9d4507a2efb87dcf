"""``taskctl submit`` and ``taskctl run``: queue a task, print its id, and wait if asked to."""

from __future__ import annotations

import os
import sys
from argparse import REMAINDER, ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from taskd.cli import outcome
from taskd.cli.verbs import logs, options, tasks
from taskd.errors import BadArguments
from taskd.model.order import IfFailed
from taskd.model.task import COMMAND, OnDeploy
from taskd.protocol import submission
from taskd.protocol.secret import Secret

if TYPE_CHECKING:
    from taskd.client.blocking import Client

_LARGEST = 256 * 1024
"""Bytes of a secret."""


def add_submit(parser: ArgumentParser) -> None:
    """``submit [options] NAME key=value …``"""
    _add_common(parser, "an argument, always a text,")
    parser.add_argument("name", metavar="NAME", help="the task's name in the app")
    parser.add_argument(
        "arguments",
        metavar="key=value",
        nargs=REMAINDER,
        help="an argument; a value that is JSON is taken as that, any other as a text",
    )


def add_run(parser: ArgumentParser) -> None:
    """``run [options] -- CMD ARGS…``"""
    _add_common(parser, "a variable of the program's environment")
    parser.add_argument(
        "--on-deploy",
        choices=[each.value for each in OnDeploy],
        default=None,
        help="at a deploy: run on (finish, the default), or get SIGTERM, leave with exit status "
        "75 and be continued under the new revision (checkpoint)",
    )
    parser.add_argument(
        "--cwd",
        metavar="DIR",
        help="where it runs (default: here). The service must be able to enter it, in its sandbox "
        "and as its user",
    )
    parser.add_argument(
        "--env",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a variable of the program's environment, which others may see (see --secret)",
    )
    parser.add_argument(
        "--umask", metavar="MODE", type=_octal, help="the program's umask, in octal: 027"
    )
    parser.add_argument(
        "--nice", metavar="N", type=int, choices=range(20), help="its nice value: 0 to 19"
    )
    parser.add_argument(
        "--stdin", metavar="FILE", help="the file that it reads, as the service's user"
    )
    parser.add_argument(
        "command", metavar="-- CMD ARGS", nargs=REMAINDER, help="the program and its arguments"
    )


def _add_common(parser: ArgumentParser, secret: str) -> None:
    parser.add_argument(
        "--secret",
        metavar="key=VALUE|@FILE|-",
        action="append",
        default=[],
        help=f"{secret} that is not shown anywhere. Other users see a command line: better name a "
        "file that holds it, or - for the standard input; one line break at its end is dropped",
    )
    parser.add_argument("--key", help="while a task with this key lives, it is that task again")
    parser.add_argument(
        "--if-exists",
        choices=sorted(submission.IF_EXISTS),
        help="what to do then: join (the default), refuse, or replace-waiting: one that has not "
        "begun gets these arguments and this time, beside one that runs a second waits",
    )
    parser.add_argument(
        "--key-for",
        metavar="TIME",
        type=options.duration,
        help="the key is the task's for so long, also once it has succeeded: 10min, 2h, 1d",
    )
    parser.add_argument(
        "--at-most",
        metavar="TIME",
        type=options.duration,
        help="with replace-waiting and --delay: no longer put off than this (default: ten delays)",
    )
    parser.add_argument("--priority", type=int, default=0, help="higher goes first (default: 0)")
    parser.add_argument("--queue", help="the queue (default: the task's own)")
    due = parser.add_mutually_exclusive_group()
    due.add_argument(
        "--delay",
        metavar="TIME",
        type=options.duration,
        help="not before so long from now: 90s, 10min, 2h, 1d",
    )
    due.add_argument(
        "--at",
        metavar="WHEN",
        type=options.moment,
        help="not before this time, with its offset from UTC: 2026-12-02T03:00+01:00",
    )
    parser.add_argument(
        "--expires",
        metavar="TIME",
        type=options.duration,
        help="cancelled if it has not started so long from now: 90s, 10min, 2h, 1d",
    )
    parser.add_argument(
        "--timeout",
        metavar="TIME",
        type=options.duration,
        help="one try may run for so long: then it is asked to leave, and fails (default: as the "
        "task's code or its queue says)",
    )
    parser.add_argument(
        "--retries",
        metavar="N",
        type=int,
        help="how often it is tried again when it fails (default: as the task's code says)",
    )
    parser.add_argument(
        "--after",
        metavar="ID",
        type=options.task_id,
        action="append",
        default=[],
        help="run once this task has succeeded; may be given several times",
    )
    parser.add_argument(
        "--if-failed",
        choices=[each.value for each in IfFailed],
        help="if one of these fails or is cancelled: wait until it has succeeded after all (hold, "
        "the default), be cancelled, or run",
    )
    parser.add_argument("--wait", action="store_true", help="wait until the task has ended")
    options.add_json(parser, "the task as one JSON object (with --wait: as it ended)")


def do_submit(client: Client, args: Namespace) -> int:
    given = arguments(args.arguments)
    hidden = secrets(args.secret)
    if twice := sorted(given.keys() & hidden):
        raise outcome.UsageError(f"submit: the argument {twice[0]!r} is given twice")
    try:
        return _queue(client, args, args.name, given | hidden, None)
    except BadArguments as error:
        if "must be a str" not in str(error):
            raise
        hint = "what reads as JSON is that, so write text as key='\"3\"'"
        raise BadArguments(f"{error} ({hint})") from None


def do_run(client: Client, args: Namespace) -> int:
    dashes = ["--"] if args.command and args.program is not None else []
    argv = [*args.command, *dashes, *(args.program or [])]
    if not argv:
        raise outcome.UsageError("run: which program? taskctl run [options] -- CMD ARGS…")
    env: dict[str, Any] = _variables(args.env)
    hidden = secrets(args.secret)
    if twice := sorted(env.keys() & hidden):
        raise outcome.UsageError(f"run: the variable {twice[0]!r} is given twice")
    cwd = _directory(args.cwd)
    given = {"argv": argv, "cwd": cwd, "env": env | hidden or None}
    stdin = None if args.stdin is None else os.path.join(cwd, args.stdin)
    also = {"umask": args.umask, "nice": args.nice, "stdin": stdin}
    given |= {name: value for name, value in also.items() if value is not None}
    return _queue(
        client, args, COMMAND, given, {"on_deploy": args.on_deploy} if args.on_deploy else None
    )


def _variables(words: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise outcome.UsageError(f"run: --env {word!r} is not of the form NAME=VALUE")
        if name in found:
            raise outcome.UsageError(f"run: the variable {name!r} is given twice")
        found[name] = value
    return found


def _octal(word: str) -> int:
    if not word.isascii() or not word.isdigit() or {*word} & {"8", "9"} or int(word, 8) > 0o777:
        raise ArgumentTypeError(f"{word!r} is not an umask such as 027")
    return int(word, 8)


def _directory(named: str | None) -> str:
    """Raises UsageError if it is relative to a directory that was removed."""
    if named is not None and os.path.isabs(named):
        return named
    try:
        here = os.getcwd()
    except FileNotFoundError:
        raise outcome.UsageError(
            "run: the working directory is gone; say where with --cwd DIR (an absolute path)"
        ) from None
    return os.path.normpath(os.path.join(here, named)) if named else here


def _queue(
    client: Client,
    args: Namespace,
    name: str,
    given: dict[str, Any],
    chosen: dict[str, Any] | None,
) -> int:
    task = client.submit(
        name,
        given,
        key=args.key,
        if_exists=args.if_exists,
        key_for=args.key_for,
        at_most=args.at_most,
        priority=args.priority,
        queue=args.queue,
        delay=args.delay,
        at=args.at,
        retries=args.retries,
        expires=args.expires,
        timeout=args.timeout,
        after=args.after,
        if_failed=args.if_failed,
        options=chosen,
    )
    if not args.json:
        print(task.id, flush=True)  # before the waiting: a script may want the id at once
        if task.created is False:
            did = "it has these arguments now" if task.replaced else "nothing new was queued"
            outcome.say(f"{task.id} was there already, with this key: {did}")
    if args.wait and name == COMMAND and not args.json:
        logs.show(client, task.id, follow=True, raw=False)
    if args.wait:
        return tasks.ended(client, [task.id], as_json=args.json, tell=False)
    if args.json:
        print(tasks.submitted_line(task))
    return outcome.DONE


def secrets(words: Sequence[str]) -> dict[str, Secret[str]]:
    """``key=VALUE``, ``key=@FILE`` and ``key=-`` words. Raises UsageError for one that is not that,
    or whose value cannot be read; what it says never holds a value."""
    found: dict[str, Secret[str]] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier():
            raise outcome.UsageError("--secret: it must be key=VALUE, key=@FILE or key=-")
        if name in found:
            raise outcome.UsageError(f"--secret: {name!r} is given twice")
        found[name] = Secret(_secret(name, value))
    if sum(word.endswith("=-") for word in words) > 1:
        raise outcome.UsageError("--secret: only one can come from the standard input")
    return found


def _secret(name: str, value: str) -> str:
    if value != "-" and not value.startswith("@"):
        return value
    try:
        if value == "-":
            raw = sys.stdin.buffer.read(_LARGEST + 1)
        else:
            with open(value[1:], "rb") as file:
                raw = file.read(_LARGEST + 1)
        text = raw.decode()
    except OSError as error:
        raise outcome.UsageError(
            f"--secret {name}: cannot read {value}: {error.strerror}"
        ) from None
    except UnicodeDecodeError:
        raise outcome.UsageError(f"--secret {name}: what stands in {value} is no text") from None
    if len(raw) > _LARGEST:
        raise outcome.UsageError(f"--secret {name}: more than {_LARGEST:,} bytes in {value}")
    return text.removesuffix("\n").removesuffix("\r")


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

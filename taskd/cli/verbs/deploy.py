"""``taskctl reload``, ``deploy`` and ``rollback``: to another release, or only the plan of it.

A user who may not deploy is told so before anything is changed. ``deploy`` switches the symlink
before it asks for the deploy, and switches it back if the release does not come to serve: the
deploy is refused, the daemon is lost, or this taskctl is interrupted (the daemon gives up a deploy
whose client has gone). A deploy may go through although its verdict does not arrive. So only an
error that says that the deploy was refused is certain; after any other the daemon is asked what
serves, and if it is the release, the symlink stays. While another taskctl switches the symlink,
this one leaves it alone until the verdict: the daemon makes one deploy of the two, or refuses the
second.
"""

from __future__ import annotations

import os
import signal
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from taskd.cli import outcome
from taskd.cli.output import jsontext, text
from taskd.cli.output.text import Look
from taskd.cli.verbs import deploy_plan, main_process
from taskd.cli.verbs.options import add_json
from taskd.cli.verbs.release_symlink import Symlink, alone
from taskd.errors import DeployRefused, Error, NoDaemon, NotAllowed, Refused

if TYPE_CHECKING:
    from taskd.client.blocking import Client

Answer = dict[str, Any]


def add_reload(parser: ArgumentParser) -> None:
    """``reload [--plan] [--allow-held] [--json]``"""
    parser.add_argument(
        "--plan", action="store_true", help="show what would become of each task; change nothing"
    )
    parser.add_argument(
        "--allow-held",
        action="store_true",
        help="deploy although tasks that the release cannot take will wait for an operator",
    )
    add_json(parser, "one JSON object")


add_rollback = add_reload


def add_deploy(parser: ArgumentParser) -> None:
    """``deploy PATH [--plan] [--allow-held] [--json]``"""
    add_reload(parser)
    parser.add_argument(
        "path",
        metavar="PATH",
        help="the release's directory; a bare name that is not here is looked for beside the "
        "release that the symlink names now",
    )


def do_reload(client: Client, args: Namespace) -> int:
    with (
        main_process.giving_way_to_a_stop(os.environ, lambda: _stops(client)),
        main_process.ending_with_it(os.environ),
    ):
        answer = client.reload(plan=args.plan, allow_held=args.allow_held)
    return _told(answer, args)


def _stops(client: Client) -> bool:
    try:
        return bool(client.status().get("stopping"))
    except NoDaemon:
        return True


def do_rollback(client: Client, args: Namespace) -> int:
    status = _told(client.rollback(plan=args.plan, allow_held=args.allow_held), args)
    if not args.plan:
        _follow(client)
    return status


def do_deploy(client: Client, args: Namespace) -> int:
    path = _link(client)
    release = _release(args.path, path)
    if args.plan:
        return _told(client.reload(release, plan=True, allow_held=args.allow_held), args)
    with _ended_in_order(), alone(path) as is_alone:
        if is_alone:
            done = _switched(client, Symlink(path), release, args.allow_held)
            return outcome.DONE if done is None else _told(done, args)
        answer = client.reload(release, allow_held=args.allow_held)
    status = _told(answer, args)
    _follow(client)
    return status


def _link(client: Client) -> str:
    """The symlink that the daemon's configuration names. Raises Error."""
    status = client.status()
    if status.get("control") is False:
        raise NotAllowed("only an operator may do this (by control.sock)")
    found = status.get("link")
    if not isinstance(found, str):
        raise Error("the daemon does not tell which symlink it goes by; use `taskctl reload`")
    return found


def _release(word: str, link: str) -> str:
    """The real path of the release that the user means. Raises Error if there is none."""
    tried = [os.path.abspath(word)]
    if word and "/" not in word and not os.path.lexists(word):
        tried.append(os.path.join(os.path.dirname(os.path.realpath(link)), word))
    found = next((path for path in tried if word and os.path.isdir(path)), None)
    if found is None:
        raise Error(f"there is no release directory at {' nor at '.join(tried)}")
    if found != tried[0]:
        outcome.say(f"{word} is {found}, beside what {link} points to")
    return os.path.realpath(found)


def _switched(client: Client, symlink: Symlink, release: str, allow_held: bool) -> Answer | None:
    """Switch the symlink, deploy, and switch it back if the release does not serve.

    The daemon's answer; None if the release serves, but the daemon could not say how it went.
    """
    try:
        symlink.switch(release)
        return client.reload(release, allow_held=allow_held)
    except BaseException as error:
        serves = symlink.ours != symlink.before and _settle(client, symlink, release, error)
        if not serves or not isinstance(error, Refused):
            raise
        outcome.say(f"it is deployed, but how it went could not be told: {error}")
        return None


def _settle(client: Client, symlink: Symlink, release: str, error: BaseException) -> bool:
    """After a deploy that raised ``error``: True if it went through all the same, and the symlink
    stays; else switch the symlink back."""
    is_certain = isinstance(error, DeployRefused | NotAllowed | NoDaemon)
    serves = False
    if not is_certain and symlink.is_switched:
        with suppress(Error, KeyboardInterrupt, SystemExit):  # without an answer: False
            serves = client.status()["release"] == release
    outcome.say(f"{release} serves, so {symlink.path} stays as it is" if serves else symlink.back())
    return serves


def _follow(client: Client) -> None:
    """Let the symlink name what serves. If that fails, the deploy has not failed."""
    try:
        path = _link(client)
        with alone(path, wait=True):
            symlink = Symlink(path)
            symlink.switch(client.status()["release"])
            if symlink.is_switched:
                outcome.say(f"{path} points to {symlink.ours} now")
    except Error as error:
        outcome.say(f"done, but the symlink may name another release than what serves: {error}")


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """In the body SIGTERM and SIGHUP raise SystemExit, so that the symlink is switched back."""
    with ExitStack() as stack:
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                stack.callback(signal.signal, number, signal.signal(number, _end))
        yield


def _end(number: int, frame: object) -> None:
    sys.exit(128 + number)


def _told(answer: Answer, args: Namespace) -> int:
    """Print the verdict, or the plan; the exit status."""
    known = answer.get("plan")
    if args.json:
        print(jsontext.line({**answer, "plan": known and deploy_plan.to_json(known)}), flush=True)
    elif args.plan:
        print(*deploy_plan.page(answer["plan"], Look.of().width), sep="\n")
    else:
        print(deployed(answer), flush=True)
    if not args.plan:
        for line in (answer.get("hook") or "").splitlines():
            outcome.say(f"before: {line}")
        for remark in deploy_plan.remarks(known) if known else []:
            outcome.say(remark)
        return outcome.DONE
    held = deploy_plan.counted(answer["plan"])["held"]
    if not held or args.allow_held:
        return outcome.DONE
    tasks = "1 task" if held == 1 else f"{held} tasks"
    outcome.say(
        f"{tasks} would be held, so the deploy would be refused; --allow-held goes on all the same"
    )
    return outcome.FAILED


def deployed(answer: Answer) -> str:
    """A deploy that went through, on one line: what serves, what drains, and the pause."""
    before, known, drains = answer["previous"], answer.get("plan"), ""
    if before and before != answer["revision"]:
        count = f": {known['on'].get(before, 0)} running" if known else ""
        drains = f" ({text.clean(before)} drains{count})"
    return f"{text.clean(answer['revision'])} serves{drains}; pause {answer['pause'] * 1000:.0f} ms"

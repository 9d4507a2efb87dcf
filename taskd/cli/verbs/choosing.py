"""Which tasks a verb is for: by their ids, or by a filter, which are counted and shown first.

The tasks are those that were counted, each in the state in which it was found: what changes
meanwhile is passed over. They are done in slices; a call that was cut off has left each task done
or not, and the same call again goes on.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from taskd.cli import outcome
from taskd.cli.output import jsontext, text
from taskd.cli.verbs import options
from taskd.record import Record

if TYPE_CHECKING:
    from taskd.client.blocking import Client
    from taskd.client.records import TaskInfo

SHOWN = 5
"""Tasks that are shown before, and refusals that are told."""

AT_ONCE = 100
"""Tasks of one request."""

PAGE = 1000

_NARROWS = ("queue", "name", "owner", "key", "revision", "since", "until", "text")

Act = Callable[[Sequence[int], str], dict[str, Any]]
"""Does it for at most AT_ONCE tasks that were found in that state."""


class Chosen(Record):
    """``samples``: the newest of each state; ``by_state``: the ids, newest first."""

    samples: list[TaskInfo]
    by_state: dict[str, list[int]]

    @property
    def total(self) -> int:
        return sum(map(len, self.by_state.values()))


def add(parser: ArgumentParser, states: Sequence[str]) -> None:
    """``(ID… | filter… | --all) [--at-most N] [--yes] [--json]``"""
    parser.add_argument("ids", metavar="ID", nargs="*", type=options.task_id, help="a task's id")
    parser.add_argument("--state", choices=states, help="tasks in this state")
    parser.add_argument("--queue", help="tasks of this queue")
    parser.add_argument("--name", help="tasks of this name")
    parser.add_argument("--owner", metavar="USER", type=options.user_id, help="this user's tasks")
    parser.add_argument("--key", help="the tasks with this key")
    parser.add_argument("--revision", help="tasks that this revision ran last")
    parser.add_argument(
        "--since", metavar="TIME", type=options.past, help="tasks submitted since then: 2h, a date"
    )
    parser.add_argument("--until", metavar="TIME", type=options.past, help="submitted until then")
    parser.add_argument("--text", help="found in the error, the reason or the arguments")
    parser.add_argument("--all", action="store_true", help="all tasks for which it can be done")
    parser.add_argument(
        "--at-most", metavar="N", type=options.at_least_one, help="refuse if there are more"
    )
    parser.add_argument("--yes", action="store_true", help="do not ask")
    options.add_json(parser, "one JSON object: found, done, passed, refused")


def by_filter(args: Namespace) -> bool:
    """Whether a filter says which; False: ids do. Raises UsageError for neither, and for both."""
    is_narrow = args.state is not None or any(getattr(args, each) is not None for each in _NARROWS)
    if sum((bool(args.ids), is_narrow, args.all)) != 1:
        raise outcome.UsageError(
            f"{args.verb}: say which tasks: their ids, or a filter (--state, --queue, --name, "
            "--owner, --key, --revision, --since, --until, --text), or --all"
        )
    return not args.ids


def do(client: Client, args: Namespace, states: Sequence[str], what: str, act: Act) -> int:
    """Count, show, ask, and do it; ``what``: "cancel", say. Returns the exit status."""
    chosen = _choose(client, args, states)
    if args.at_most is not None and chosen.total > args.at_most:
        raise outcome.UsageError(f"{args.verb}: {chosen.total:,} tasks, more than {args.at_most:,}")
    if not args.json:
        _show(chosen, what)
    if not chosen.total or not (args.yes or _agrees(chosen.total, what)):
        if args.json:
            print(jsontext.line(_told(chosen.total, 0, 0, [])))
        return outcome.USAGE if chosen.total else outcome.DONE
    done, passed, refused = 0, 0, []
    for state, tasks in chosen.by_state.items():
        for start in range(0, len(tasks), AT_ONCE):
            answer = act(tasks[start : start + AT_ONCE], state)
            done += len(answer["done"])
            passed += len(answer["passed"])
            refused += answer["refused"]
            over = done + passed + len(refused)
            if over % PAGE < AT_ONCE and PAGE <= over < chosen.total:
                print(f"{over:,} of {chosen.total:,}", file=sys.stderr)
    if args.json:
        print(jsontext.line(_told(chosen.total, done, passed, refused)))
    else:
        also = f"; {passed:,} had changed meanwhile" if passed else ""
        print(f"{what}: done for {done:,}{also}")
        for each in refused[:SHOWN]:
            outcome.say(each["why"])
        if len(refused) > SHOWN:
            outcome.say(f"… and {len(refused) - SHOWN:,} more were refused")
    return outcome.FAILED if refused else outcome.DONE


def _choose(client: Client, args: Namespace, states: Sequence[str]) -> Chosen:
    narrow: dict[str, Any] = {name: getattr(args, name) for name in _NARROWS}
    samples: list[TaskInfo] = []
    by_state: dict[str, list[int]] = {}
    for state in (args.state,) if args.state else states:
        before, found = None, by_state.setdefault(state, [])
        while page := client.tasks(state=state, limit=PAGE, before=before, **narrow):
            before = page[-1].id
            samples += page[: SHOWN if not found else 0]
            found += [task.id for task in page]
    return Chosen(samples, by_state)


def _show(chosen: Chosen, what: str) -> None:
    print(f"{what}: {chosen.total:,} tasks{':' if chosen.total else ''}")
    for task in chosen.samples[:SHOWN]:
        print(text.clean(f"  {task.id}  {task.name}  {task.shown}  {task.arguments or ''}"))
    if chosen.total > SHOWN:
        print(f"  … and {chosen.total - len(chosen.samples[:SHOWN]):,} more")


def _agrees(count: int, what: str) -> bool:
    if not (os.isatty(0) and os.isatty(1)):
        print("nothing was done: say --yes", file=sys.stderr)
        return False
    return input(f"{what} these {count:,}? [y/N] ").strip().lower() in ("y", "yes")


def _told(found: int, done: int, passed: int, refused: list[dict[str, Any]]) -> dict[str, Any]:
    told = [{"id": str(each["task"]), "why": each["why"]} for each in refused]
    return {"found": found, "done": done, "passed": passed, "refused": told}

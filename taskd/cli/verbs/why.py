"""``taskctl why``: what a task waits for, in a sentence, and what to do."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from taskd.cli import outcome
from taskd.cli.output import jsontext, text
from taskd.cli.verbs.options import add_json, task_id

if TYPE_CHECKING:
    from taskd.client.blocking import Client


def add_why(parser: ArgumentParser) -> None:
    """``why ID [--json]``"""
    parser.description = (
        "Say in a sentence what a task waits for: a limit and who holds it, a pause, a place in "
        "its queue, a time, other tasks; and what can be done."
    )
    parser.add_argument("id", metavar="ID", type=task_id, help="the task's id")
    add_json(parser, "one JSON object: id, state, kind, text, do, limit")


def do_why(client: Client, args: Namespace) -> int:
    found = client.why(args.id)
    if args.json:
        limit = found.get("limit")
        if limit is not None:
            holders = [{**each, "task": str(each["task"])} for each in limit["holders"]]
            found["limit"] = {**limit, "holders": holders}
        print(jsontext.line({**found, "id": str(found["id"])}))
        return outcome.DONE
    print(f"task {found['id']} ({found['state']}) {text.clean(found['text'])}")
    print(f"to do: {text.clean(found['do'])}")
    return outcome.DONE

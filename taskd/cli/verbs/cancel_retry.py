"""``taskctl cancel`` and ``taskctl retry``: wishes about tasks; each is safe to repeat."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING

from taskd.cli import outcome
from taskd.cli.verbs.options import add_ids
from taskd.errors import Refused

if TYPE_CHECKING:
    from taskd.client.blocking import Client

add_cancel = add_ids
add_retry = add_ids


def do_cancel(client: Client, args: Namespace) -> int:
    return _each(args.ids, lambda task: _cancelled(task, client))


def _cancelled(task: int, client: Client) -> str:
    answer = client.cancel(task)
    state, was = answer["state"], answer["was"]
    if state == "running":
        return f"{task} is asked to leave and will be cancelled"
    if state != was:
        return f"{task} {state}"
    return f"{task} had already {'been cancelled' if was == 'cancelled' else was}"


def do_retry(client: Client, args: Namespace) -> int:
    return _each(args.ids, lambda task: f"{task} {client.retry(task)['state']}")


def _each(ids: list[int], act: Callable[[int], str]) -> int:
    """Do all tasks, also if one of them is refused."""
    status = outcome.DONE
    for task in ids:
        try:
            print(act(task))
        except Refused as error:
            outcome.say(str(error))
            status = outcome.FAILED
    return status

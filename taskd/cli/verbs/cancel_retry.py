"""``taskctl cancel`` and ``taskctl retry``: wishes about tasks; each is safe to repeat."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING

from taskd.cli import outcome
from taskd.cli.verbs.options import add_ids
from taskd.errors import Refused

if TYPE_CHECKING:
    from taskd.client.blocking import Client


def add_cancel(parser: ArgumentParser) -> None:
    """``cancel ID…``"""
    add_ids(parser)


def add_retry(parser: ArgumentParser) -> None:
    """``retry ID…``"""
    add_ids(parser)


def do_cancel(client: Client, args: Namespace) -> int:
    return _each(args.ids, lambda task: _cancelled(task, client))


def _cancelled(task: int, client: Client) -> str:
    answer = client.cancel(task)
    state, was = answer["state"], answer["was"]
    if state == "running":
        return f"{task} is asked to leave and will be cancelled"
    return f"{task} had already {_ended(was)}" if state == was else f"{task} {state}"


def _ended(state: str) -> str:
    return "been cancelled" if state == "cancelled" else state


def do_retry(client: Client, args: Namespace) -> int:
    return _each(args.ids, lambda task: f"{task} {client.retry(task)['state']}")


def _each(ids: list[int], act: Callable[[int], str]) -> int:
    """One that is refused does not keep the others from being done."""
    status = outcome.DONE
    for task in ids:
        try:
            print(act(task))
        except Refused as error:
            outcome.say("taskctl", str(error))
            status = outcome.FAILED
    return status

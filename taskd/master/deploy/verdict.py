"""Who waits for the verdict of a deploy, what they asked for, and telling them.

In the master. A verdict is true: a deploy that was done is never told as refused, whatever its
answer has grown to.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from taskd.errors import DeployRefused, Error
from taskd.record import Record

if TYPE_CHECKING:
    from taskd.master.clients.clients import Client
    from taskd.master.master import Master


class Caller:
    """Who waits for the verdict: a client's request, by names that survive an exec."""

    __slots__ = ("client", "request")

    def __init__(self, client: int, request: int) -> None:
        self.client = client
        self.request = request


class How(Record):
    """``plan_only``: stop at the plan and change nothing. ``allow_held``: go on although the new
    revision cannot take everything. ``goes_back``: a rollback, in an emergency perhaps: a revision
    that lives is promoted whatever has become of its files."""

    plan_only: bool = False
    allow_held: bool = False
    goes_back: bool = False


PLAINLY = How()


def tell(master: Master, callers: list[Caller], done: dict[str, Any]) -> None:
    """The deploy is done."""
    for client, request in _there(master, callers):
        client.reply(request, done, short=done | {"plan": None, "hook": ""})


def tell_plan(master: Master, callers: list[Caller], plan: dict[str, Any] | None) -> None:
    """Nothing was to be done."""
    for client, request in _there(master, callers):
        client.reply(request, {"plan": plan})


def refuse(master: Master, callers: list[Caller], error: Error) -> None:
    """Nothing has changed."""
    for client, request in _there(master, callers):
        client.refuse(request, DeployRefused(str(error)))


def _there(master: Master, callers: list[Caller]) -> Iterator[tuple[Client, int]]:
    """Those that are connected still."""
    for caller in callers:
        client = master.clients.get(caller.client)
        if client is not None:
            yield client, caller.request

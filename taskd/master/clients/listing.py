"""The list of tasks: bounded in tasks by who asks, in bytes by what a frame holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taskd.master.clients.taskview import glance, ran
from taskd.model.task import State
from taskd.protocol import frames
from taskd.protocol.server_side import Request
from taskd.store.api import Filter, Row

if TYPE_CHECKING:
    from taskd.master.clients.clients import Client
    from taskd.master.master import Master

ROOM = frames.LIMIT // 2
"""Bytes after which a list ends; its last task, with a result and an error of the largest size,
still fits into the frame."""

USUAL = 100
"""Tasks in a list, unless more or fewer were asked for."""

_EACH = 500
"""Bytes of a task without its texts, at most."""


def list_tasks(master: Master, client: Client, request: Request) -> None:
    """As many as fit, the newest first; the client asks for the rest by ``before``."""
    rows = master.reader.tasks(_filter(client, request.fields))
    with_results = request.fields.get("results", False)
    seconds = ran(master, rows)
    found: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        task = glance(master, row, seconds.get(row.id))
        if with_results and row.state is State.SUCCEEDED:
            task["result"] = master.reader.result(row.id)
        size += _size(task, row)
        if found and size > ROOM:
            break
        found.append(task)
    client.reply(request.id, {"tasks": found})


def _filter(client: Client, fields: dict[str, Any]) -> Filter:
    state = fields.get("state")
    return Filter(
        owner=client.owner,
        state=State(state) if state else None,
        queue=fields.get("queue"),
        name=fields.get("name"),
        before=fields.get("before"),
        limit=fields.get("limit") or USUAL,
    )


def _size(task: dict[str, Any], row: Row) -> int:
    """About how many bytes it takes in the frame."""
    texts = [*task.values(), *(row.error or {}).values(), *(task["progress"] or {}).values()]
    return _EACH + sum(_bytes(text) for text in texts)


def _bytes(text: Any) -> int:
    if isinstance(text, bytes):
        return len(text)
    if not isinstance(text, str):
        return 0
    return len(text) if text.isascii() else len(text.encode())

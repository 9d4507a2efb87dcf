"""What submit.sock takes: a share for each user, so that none is in another's way ([access]).

In the master. Operators (control.sock) have no limit. What a user has already, the store counts:
the limits hold over deploys, crashes and reboots. The last of the disk (``disk_reserve``) is for
what runs, which must save its state, and for operators.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from taskd.errors import NotAllowed, Refused
from taskd.store.api import Share

if TYPE_CHECKING:
    from taskd.master.clients.clients import Client
    from taskd.master.master import Master

FULL = "submit.sock accepts nothing new"
"""What the trouble is called."""


def of(master: Master, client: Client) -> Share | None:
    """What the store is to hold this client's tasks to; None: nothing."""
    if client.is_control:
        return None
    access = master.config.access
    return Share(access.tasks_per_user, access.bytes_per_user, _shortage(master))


def check(master: Master, client: Client, tasks: list[dict[str, Any]]) -> None:
    """Raises Refused for what can never be accepted, whatever ends meanwhile."""
    if client.is_control:
        return
    access = master.config.access
    highest = max(task.get("priority") or 0 for task in tasks)
    if highest > access.max_priority:
        raise NotAllowed(
            f"priority {highest} is for operators (control.sock): others may ask for "
            f"{access.max_priority} at most ([access] max_priority)"
        )
    _fits(len(tasks), "tasks", "tasks_per_user", access.tasks_per_user)
    size = sum(len(task["args"]) for task in tasks)
    _fits(size, "bytes of arguments", "bytes_per_user", access.bytes_per_user)


def _fits(count: int, what: str, key: str, limit: int | None) -> None:
    if limit is not None and count > limit:
        raise Refused(f"{count:,} {what} at once, and [access] {key} is {limit:,}")


def _shortage(master: Master) -> str | None:
    """Why nobody may add anything just now."""
    reserve = master.config.access.disk_reserve
    if reserve is None:
        return None
    try:
        found = os.statvfs(master.places.state)
    except OSError:  # the store will say so, if it matters
        return None
    free = found.f_bavail * found.f_frsize
    if free >= reserve:
        return None
    why = (
        f"{free >> 20:,} MiB are free in {master.places.state}, and [access] disk_reserve = "
        f"{reserve >> 20:,} MiB is for running tasks and operators"
    )
    master.loop.troubles.tell(FULL, why)
    return f"{why}: try again later"

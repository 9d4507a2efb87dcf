"""What submit.sock takes: a share for each user, so that none is in another's way ([access]).

Operators (control.sock) have no limit. What a user has already, the store counts: the limits hold
over deploys, crashes and reboots. The last of the disk (``disk_reserve``) is for what runs, which
must save its state, and for operators.
"""

from __future__ import annotations

import os
from typing import Any

from taskd.config import Access
from taskd.errors import NotAllowed, Refused
from taskd.master.clients.client import Client
from taskd.master.loop import Troubles
from taskd.store.api import Share

FULL = "submit.sock accepts nothing new"
"""What the trouble is called."""


class Shares:
    def __init__(self, troubles: Troubles, access: Access, state: str) -> None:
        """``state``: the state directory."""
        self._troubles = troubles
        self._access = access
        self._state = state

    def of(self, client: Client) -> Share | None:
        """What the store is to hold this client's tasks to; None: nothing."""
        if client.is_control:
            return None
        return Share(self._access.tasks_per_user, self._access.bytes_per_user, self._shortage())

    def check(self, client: Client, tasks: list[dict[str, Any]]) -> None:
        """Raises Refused for what can never be accepted, whatever ends meanwhile."""
        if client.is_control:
            return
        access = self._access
        highest = max(task.get("priority") or 0 for task in tasks)
        if highest > access.max_priority:
            raise NotAllowed(
                f"priority {highest} is for operators (control.sock): others may ask for "
                f"{access.max_priority} at most ([access] max_priority)"
            )
        size = sum(len(task["args"]) for task in tasks)
        for count, what, key, limit in (
            (len(tasks), "tasks", "tasks_per_user", access.tasks_per_user),
            (size, "bytes of arguments", "bytes_per_user", access.bytes_per_user),
        ):
            if limit is not None and count > limit:
                raise Refused(f"{count:,} {what} at once, and [access] {key} is {limit:,}")

    def _shortage(self) -> str | None:
        """Why no submitter may add anything just now."""
        reserve = self._access.disk_reserve
        if reserve is None:
            return None
        try:
            found = os.statvfs(self._state)
        except OSError:  # the store will say so, if it matters
            return None
        free = found.f_bavail * found.f_frsize
        if free >= reserve:
            return None
        why = (
            f"{free >> 20:,} MiB are free in {self._state}, and [access] disk_reserve = "
            f"{reserve >> 20:,} MiB is for running tasks and operators"
        )
        self._troubles.tell(FULL, why)
        return f"{why}: try again later"

"""The limits of [access] on the tasks that each user submits by submit.sock.

Operators (control.sock) have no limit. The store counts what a user has: the limits hold over
deploys, crashes and reboots. The last of the disk (``disk_reserve``) is kept for running tasks,
which must save their state, and for operators.
"""

from __future__ import annotations

import os
from typing import Any

from taskd.config import Access
from taskd.errors import NotAllowed, Refused
from taskd.master.clients.client import Client
from taskd.master.loop import Troubles
from taskd.model.duration import in_words
from taskd.record import Record
from taskd.store.api import Share

LONGEST_KEPT = 30 * 86400.0
"""Seconds for which a submitter may have a key or a name kept: each is a row for so long."""

FULL = "submit.sock accepts nothing new"
"""The name of the trouble."""


class Shares(Record):
    """``state``: the state directory."""

    troubles: Troubles
    access: Access
    state: str

    def of(self, client: Client) -> Share | None:
        """The limits that the store applies to this client's tasks; None: no limit."""
        if client.is_control:
            return None
        return Share(self.access.tasks_per_user, self.access.bytes_per_user, self._shortage())

    def check(self, client: Client, tasks: list[dict[str, Any]]) -> None:
        """Raises Refused for tasks beyond the limits of a user who has no others."""
        if client.is_control:
            return
        access = self.access
        self.check_priority(client, max(task.get("priority") or 0 for task in tasks))
        for what in ("key_for", "named_for"):
            if max(task.get(what) or 0.0 for task in tasks) > LONGEST_KEPT:
                raise NotAllowed(
                    f"{what}: {in_words(LONGEST_KEPT)} at most; for longer it is for operators "
                    "(control.sock)"
                )
        size = sum(len(task["args"]) for task in tasks)
        for count, what, key, limit in (
            (len(tasks), "tasks", "tasks_per_user", access.tasks_per_user),
            (size, "bytes of arguments", "bytes_per_user", access.bytes_per_user),
        ):
            if limit is not None and count > limit:
                raise Refused(f"{count:,} {what} at once, and [access] {key} is {limit:,}")

    def check_priority(self, client: Client, priority: int) -> None:
        """Raises NotAllowed for one that only operators may give."""
        most = self.access.max_priority
        if not client.is_control and priority > most:
            raise NotAllowed(
                f"priority {priority} is for operators (control.sock): others may ask for {most} "
                "at most ([access] max_priority)"
            )

    def _shortage(self) -> str | None:
        """Why no submitter may add a task just now, if the disk is short."""
        reserve = self.access.disk_reserve
        if reserve is None:
            return None
        try:
            found = os.statvfs(self.state)
        except OSError:  # the store will report it, if it cannot write either
            return None
        free = found.f_bavail * found.f_frsize
        if free >= reserve:
            return None
        why = (
            f"{free >> 20:,} MiB are free in {self.state}, and [access] disk_reserve = "
            f"{reserve >> 20:,} MiB is for running tasks and operators"
        )
        self.troubles.tell(FULL, why)
        return f"{why}: try again later"

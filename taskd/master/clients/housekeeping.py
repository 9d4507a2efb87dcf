"""The requests of ``taskctl gc``: remove tasks that are over, and make the store's file small.

As in ``task_requests``, a handler answers by ``client.written``, or raises Refused.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import Any

from taskd.config import size_text
from taskd.errors import NotAllowed, Refused, StoreError
from taskd.master.clients.client import Client
from taskd.master.clients.clients import Handler
from taskd.master.loop import Storage
from taskd.paths import Places
from taskd.protocol.server_side import Request
from taskd.record import Record
from taskd.store.api import Applied, Purge
from taskd.store.queries import Size, StoreSize

ROOM = 16 << 20
"""Bytes of arguments, saved states and results that one commit removes."""


class Housekeeping(Record):
    """``is_awaited``: whether a client is still to be told of the end of a task."""

    places: Places
    storage: Storage
    is_awaited: Callable[[int], bool]

    def handlers(self) -> dict[str, Handler]:
        return {"remove": self.remove, "compact": self.compact}

    def remove(self, client: Client, request: Request) -> None:
        """Remove those of the tasks that are over, however short. Their files go with the next
        round of ``service.retention``."""
        _operators_only(client)
        tasks = [task for task in request.fields["tasks"] if not self.is_awaited(task)]
        self._remove(client, request, tasks, [])

    def _remove(
        self, client: Client, request: Request, tasks: list[int], removed: list[int]
    ) -> None:
        """Go on until nothing more is removed: a commit takes as much as fits."""

        def done(outcome: Applied | StoreError) -> None:
            gone: Any = outcome.result if isinstance(outcome, Applied) else outcome
            if isinstance(gone, Refused):
                client.written(request, gone)
                return
            left = [task for task in tasks if task not in set(gone)]
            if gone and left:
                self._remove(client, request, left, removed + gone)
            else:
                client.written(request, {"removed": removed + gone})

        self.storage.write(Purge(tuple(tasks), None, ROOM), done)

    def compact(self, client: Client, request: Request) -> None:
        """Write the store's file anew. Other writes wait meanwhile."""
        _operators_only(client)
        self.storage.ask(StoreSize(), lambda size: self._compact(client, request, size))

    def _compact(self, client: Client, request: Request, before: Size | StoreError) -> None:
        if isinstance(before, StoreError):
            client.written(request, before)
            return
        needed = 2 * (before.total - before.free)
        if (room := shutil.disk_usage(self.places.state).free) < needed:
            client.written(
                request,
                Refused(
                    f"{self.places.state} has {size_text(room)} left, and to write the store anew "
                    f"takes {size_text(needed)} for a while: make room first"
                ),
            )
            return
        os.environ["SQLITE_TMPDIR"] = self.places.state  # /tmp may be memory

        def told(now: Size | StoreError) -> None:
            if isinstance(now, StoreError):
                client.written(request, now)
            elif not now.shrinks:
                client.written(request, Refused("the store could not be written anew; try again"))
            else:
                client.written(request, {"before": before.total, "now": now.total})

        self.storage.writer.compact(lambda: self.storage.ask(StoreSize(), told))


def _operators_only(client: Client) -> None:
    if not client.is_control:
        raise NotAllowed("only an operator may do this (by control.sock)")

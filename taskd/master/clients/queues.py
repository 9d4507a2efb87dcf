"""Which queues there are, and what ``status`` tells of them.

A queue is named by taskd.toml or by a task of a live revision: each gets places of its own, so a
name that a client makes up is no queue. [app] open_queues lets operators (control.sock) make up
names; submitters never. Tasks that wait in a queue that a deploy has left without a name still run,
with what ``default`` has.
"""

from __future__ import annotations

from typing import Any

from taskd.config import Config
from taskd.errors import Refused, StoreError
from taskd.master.clients.client import Client
from taskd.master.fleet import Revisions
from taskd.master.loop import Storage, Troubles
from taskd.model.task import State

LISTED = 500
"""Queues in one answer to ``status``."""


class Queues:
    def __init__(
        self, troubles: Troubles, config: Config, storage: Storage, revisions: Revisions
    ) -> None:
        self._troubles = troubles
        self._config = config
        self._storage = storage
        self._revisions = revisions

    def named(self) -> set[str]:
        """The queues that the file or a task of a live revision names."""
        tasks = (entry for r in self._revisions.live() for entry in r.tasks.values())
        return {*self._config.queues, *(entry["queue"] for entry in tasks)}

    def check(self, client: Client, queue: str) -> None:
        """Raises Refused if that client may not submit to a queue of this name."""
        if queue in self._config.queues or queue in (known := self.named()):
            return
        if self._config.app.open_queues and client.is_control:
            return
        import difflib

        near = difflib.get_close_matches(queue, known, 3)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise Refused(
            f"there is no queue {queue!r}: {hint}A queue is named by a task or by [queues.NAME] in "
            "taskd.toml"
        )

    def in_status(self, client: Client) -> dict[str, Any]:
        """``states``, ``queues`` and ``more_queues`` of the answer to ``status``. A submitter is
        not told names that others have made up."""
        try:
            totals = self._storage.reader.states()
            names = self._names(client)
            queues = {name: self._queue(name) for name in names[:LISTED]}
        except StoreError as error:  # the problems say so, which is what one looks for then
            self._troubles.tell("the store cannot be read", error)
            totals, names, queues = {}, [], {}
        return {
            "states": {state.value: totals.get(state, 0) for state in State},
            "queues": queues,
            "more_queues": len(names) > LISTED,
        }

    def _names(self, client: Client) -> list[str]:
        """Those that the file names come first."""
        file = sorted(self._config.queues)
        known = self.named()
        reader = self._storage.reader
        busy = reader.busy(LISTED + len(known)) if client.owner is None else []
        made_up = set(busy).difference(known)
        return [*file, *sorted(known.difference(file)), *sorted(made_up)]

    def _queue(self, name: str) -> dict[str, int]:
        counts = self._storage.reader.states(name)
        return {
            "running": counts.get(State.RUNNING, 0),
            "queued": counts.get(State.QUEUED, 0),
            "concurrency": self._config.concurrency(name),
        }

"""The queues that clients may submit to, and what ``status`` tells of them.

A queue exists if taskd.toml or a task of a live revision names it: each queue has places of its
own, so a client cannot make up a name. With [app] open_queues operators (control.sock) can;
submitters never. Tasks in a queue that no file or revision names any more, after a deploy, still
run, with the settings of ``default``.
"""

from __future__ import annotations

from typing import Any

from taskd.config import Config
from taskd.errors import Refused, StoreError
from taskd.master.clients.client import Client
from taskd.master.fleet import Revisions
from taskd.master.loop import Storage, Troubles
from taskd.model.task import State
from taskd.record import Record

LISTED = 500
"""Queues in one answer to ``status``."""


class Queues(Record):
    troubles: Troubles
    config: Config
    storage: Storage
    revisions: Revisions

    def named(self) -> set[str]:
        """The queues that taskd.toml or a task of a live revision names."""
        tasks = (entry for r in self.revisions.live() for entry in r.tasks.values())
        return {*self.config.queues, *(entry["queue"] for entry in tasks)}

    def check(self, client: Client, queue: str) -> None:
        """Raises Refused if ``client`` may not submit to ``queue``."""
        if (
            queue in self.config.queues
            or queue in (known := self.named())
            or (self.config.app.open_queues and client.is_control)
        ):
            return
        import difflib

        near = difflib.get_close_matches(queue, known, 3)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise Refused(
            f"there is no queue {queue!r}: {hint}A queue is named by a task or by [queues.NAME] in "
            "taskd.toml"
        )

    def in_status(self, client: Client) -> dict[str, Any]:
        """``states``, ``queues`` and ``more_queues`` of the answer to ``status``: first the queues
        that taskd.toml names. Names that clients have made up are shown to operators alone."""
        reader = self.storage.reader
        try:
            totals = reader.states()
            file, known = sorted(self.config.queues), self.named()
            busy = reader.busy(LISTED + len(known)) if client.owner is None else []
            names = [*file, *sorted(known.difference(file)), *sorted(set(busy).difference(known))]
            listed = {name: reader.states(name) for name in names[:LISTED]}
        except StoreError as error:  # the answer's ``problems`` will say so
            self.troubles.tell("the store cannot be read", error)
            totals, names, listed = {}, [], {}
        return {
            "states": {state.value: totals.get(state, 0) for state in State},
            "queues": {
                name: {
                    "running": counts.get(State.RUNNING, 0),
                    "queued": counts.get(State.QUEUED, 0),
                    "concurrency": self.config.concurrency(name),
                }
                for name, counts in listed.items()
            },
            "more_queues": len(names) > LISTED,
        }

"""The queues that clients may submit to, and what ``status`` tells of them.

A queue exists if taskd.toml or a task of a live revision names it: each queue has places of its
own, so a client cannot make up a name. With [app] open_queues operators (control.sock) can;
submitters never. Tasks in a queue that no file or revision names any more, after a deploy, still
run, with the settings of ``default``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from taskd.config import Config
from taskd.errors import Refused, StoreError
from taskd.master.attempts import Concurrency
from taskd.master.clients.client import Client
from taskd.master.fleet import Revisions
from taskd.master.loop import Storage, Troubles
from taskd.model.task import State
from taskd.record import Record
from taskd.store.queries import Counts, QueueCounts

LISTED = 500
"""Queues in one answer to ``status``."""


class Queues(Record):
    troubles: Troubles
    config: Config
    storage: Storage
    revisions: Revisions
    concurrency: Concurrency

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

    def in_status(self, client: Client, done: Callable[[dict[str, Any]], None]) -> None:
        """Calls ``done`` with ``states``, ``queues`` and ``more_queues`` of the answer to
        ``status``: first the queues that taskd.toml names. Names that clients have made up are
        shown to operators alone. (If the store cannot be read, ``problems`` will say so.)"""
        file, known = sorted(self.config.queues), self.named()
        most = LISTED + 1 if client.owner is None else 0

        def counted(found: list[Counts] | StoreError) -> None:
            totals: dict[State, int] = {}
            by_queue: dict[str, dict[State, int]] = {}
            names: list[str] = []
            if isinstance(found, StoreError):
                self.troubles.tell("the store cannot be read", found)
            else:
                totals, by_queue = found[0]
                others = sorted(by_queue.keys() - known)
                names = [*file, *sorted(known.difference(file)), *others]
            counts = {name: by_queue.get(name, {}) for name in names[:LISTED]}
            done(
                {
                    "states": {state.value: totals.get(state, 0) for state in State},
                    "queues": {
                        name: {
                            "running": of.get(State.RUNNING, 0),
                            "queued": of.get(State.QUEUED, 0),
                            "concurrency": self.concurrency.of(name),
                            "said": self.concurrency.said(name),
                        }
                        for name, of in counts.items()
                    },
                    "more_queues": len(names) > LISTED,
                }
            )

        self.storage.gather(QueueCounts(frozenset(known), most), counted)

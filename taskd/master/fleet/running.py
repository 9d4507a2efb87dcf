"""An attempt under way, as the master holds it in memory: from its claim to its recorded end."""

from __future__ import annotations

from typing import Any

from taskd.posix.process import Identity
from taskd.protocol import cbor
from taskd.slot import layout
from taskd.store.api import Reader, Row

BATCH = 500


class Running:
    """``attempt``: its number, 0 until the claim is committed. ``progress``: the latest report.

    ``asked``: what the worker was told last: None, "leave" or "cancel"; ``why``: the reason given.
    ``waiting``: why it cannot save, or its end not be recorded, just now, or None.
    """

    __slots__ = (
        "asked",
        "attempt",
        "name",
        "on_deploy",
        "owner",
        "progress",
        "queue",
        "task",
        "waiting",
        "why",
    )

    def __init__(
        self, task: int, queue: str, name: str, owner: int, on_deploy: str, attempt: int = 0
    ) -> None:
        self.task = task
        self.queue = queue
        self.name = name
        self.owner = owner
        self.on_deploy = on_deploy
        self.attempt = attempt
        self.progress: dict[str, Any] | None = None
        self.asked: str | None = None
        self.why: str | None = None
        self.waiting: str | None = None

    def export(self) -> dict[str, Any]:
        """For the snapshot."""
        return {
            "task": self.task,
            "queue": self.queue,
            "name": self.name,
            "owner": self.owner,
            "on_deploy": self.on_deploy,
            "attempt": self.attempt,
            "progress": self.progress,
            "asked": self.asked,
            "why": self.why,
            "waiting": self.waiting,
        }

    @classmethod
    def restored(cls, fields: dict[str, Any]) -> Running:
        """From ``export``'s fields, of this version or of the one before."""
        given = ("task", "queue", "name", "owner", "on_deploy", "attempt")
        running = cls(*(fields[name] for name in given))
        running.progress = fields["progress"]
        running.asked, running.why = fields["asked"], fields["why"]
        running.waiting = fields["waiting"]
        return running

    def is_attempt(self, task: int, attempt: int) -> bool:
        return (self.task, self.attempt) == (task, attempt)


def of_row(row: Row) -> Running:
    """The attempt of a running task, from its row in the store."""
    on_deploy = row.on_deploy.value if row.on_deploy else "finish"
    return Running(row.id, row.queue, row.name, row.owner, on_deploy, row.attempt)


def owner_of(row: Row) -> tuple[str, Identity]:
    """The name of the slot's file, and the process of the worker that was given the task."""
    assert row.worker is not None, f"task {row.id} is running without an owner"
    worker, pid, start, boot = cbor.loads(row.worker)
    return layout.file_name(worker), Identity(pid, start, boot)


def rows(reader: Reader) -> list[Row]:
    """The rows of all running tasks. Raises StoreError."""
    found: list[Row] = []
    while True:
        some = reader.running(found[-1].id if found else 0, BATCH)
        found += some
        if len(some) < BATCH:
            return found

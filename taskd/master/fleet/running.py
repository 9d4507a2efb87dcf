"""An attempt in motion, as the master holds it in memory: from its claim to its recorded end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taskd.posix.process import Identity
from taskd.protocol import cbor

if TYPE_CHECKING:
    from taskd.store.api import Reader, Row

BATCH = 500


class Running:
    """``attempt`` is 0 until the claim is committed. ``progress`` is the latest only.

    ``asked``: None, "leave" or "cancel", as we last told the worker; ``why`` goes with it.
    ``waiting``: why it cannot save just now, or None.
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

    def __init__(self, task: int, queue: str, name: str, owner: int, on_deploy: str) -> None:
        self.task = task
        self.queue = queue
        self.name = name
        self.owner = owner
        self.on_deploy = on_deploy
        self.attempt = 0
        self.progress: dict[str, Any] | None = None
        self.asked: str | None = None
        self.why: str | None = None
        self.waiting: str | None = None


def of_row(row: Row) -> Running:
    """A running task's attempt, as the store knows it."""
    on_deploy = row.on_deploy.value if row.on_deploy else "finish"
    running = Running(row.id, row.queue, row.name, row.owner, on_deploy)
    running.attempt = row.attempt
    return running


def owner_of(row: Row) -> tuple[str, Identity]:
    """The slot file's name and the process that was given the task."""
    assert row.worker is not None, f"task {row.id} is running without an owner"
    worker, pid, start, boot = cbor.loads(row.worker)
    return f"{worker.hex()}.slot", Identity(pid, start, boot)


def rows(reader: Reader) -> list[Row]:
    """Every running task. Raises StoreError."""
    found: list[Row] = []
    while True:
        some = reader.running(found[-1].id if found else 0, BATCH)
        found += some
        if len(some) < BATCH:
            return found

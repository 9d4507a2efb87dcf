"""An attempt under way, as the master holds it in memory: from its claim to its recorded end."""

from __future__ import annotations

from typing import Any

from taskd.errors import ProtocolError, StoreError
from taskd.model.task import Budgets
from taskd.posix.process import Identity
from taskd.protocol import cbor
from taskd.record import Record
from taskd.slot import layout
from taskd.store.queries import Part
from taskd.store.values import Row


class Known(Record):
    """What a claim answers of the task's row, and an attempt keeps (fields: see ``Row``)."""

    version: int
    retries_allowed: int
    retries_said: int | None
    budgets: Budgets
    saved_version: int | None
    revision: str | None
    worker: bytes | None
    started: float | None
    timeout: float | None
    used: float | None
    timed_out: bool


class Running:
    """``attempt``: its number, 0 until the claim is committed. ``progress``: the latest report.

    ``known``: what the task's row said at the claim; nothing changes it before the end is recorded,
    so that no part of the master reads the row again. None only in an attempt that 0.2 has handed
    over, until the store was asked.

    ``asked``: what the worker was told last: None, "leave", "cancel" or "timeout"; ``why``: the
    reason given. ``begun``: when it began, by the monotonic clock; None: its slot knows.
    ``timed_out``: why its time is over, once it was told so.
    ``silent``: since when it reports nothing, in Unix seconds, if that is too long.
    ``waiting``: why it cannot save, or its end not be recorded, just now, or None.
    """

    __slots__ = (
        "asked",
        "attempt",
        "begun",
        "known",
        "name",
        "on_deploy",
        "owner",
        "progress",
        "queue",
        "silent",
        "task",
        "timed_out",
        "waiting",
        "why",
    )

    def __init__(
        self,
        task: int,
        queue: str,
        name: str,
        owner: int,
        on_deploy: str,
        attempt: int = 0,
        known: Known | None = None,
    ) -> None:
        self.task = task
        self.queue = queue
        self.name = name
        self.owner = owner
        self.on_deploy = on_deploy
        self.attempt = attempt
        self.known = known
        self.progress: dict[str, Any] | None = None
        self.asked: str | None = None
        self.why: str | None = None
        self.waiting: str | None = None
        self.begun: float | None = None
        self.timed_out: str | None = None
        self.silent: float | None = None

    @property
    def row(self) -> Known:
        """What the task's row said at the claim."""
        assert self.known is not None, "it is completed before anything is read"
        return self.known

    def export(self) -> dict[str, Any]:
        """For the snapshot."""
        return {
            "task": self.task,
            "queue": self.queue,
            "name": self.name,
            "owner": self.owner,
            "on_deploy": self.on_deploy,
            "attempt": self.attempt,
            "known": None if self.known is None else self.known._asdict(),
            "progress": self.progress,
            "asked": self.asked,
            "why": self.why,
            "waiting": self.waiting,
            "begun": self.begun,
            "timed_out": self.timed_out,
            "silent": self.silent,
        }

    @classmethod
    def restored(cls, fields: dict[str, Any]) -> Running:
        """From ``export``'s fields, of this version, or of 0.2 (without ``known``)."""
        given = ("task", "queue", "name", "owner", "on_deploy", "attempt")
        running = cls(*(fields[name] for name in given))
        if (known := fields.get("known")) is not None:
            kept = Known._make(known[field] for field in Known._fields)
            running.known = kept._replace(budgets=Budgets._make(kept.budgets))
        running.progress = fields["progress"]
        running.asked, running.why = fields["asked"], fields["why"]
        running.waiting = fields["waiting"]
        running.begun, running.timed_out = fields.get("begun"), fields.get("timed_out")
        running.silent = fields.get("silent")
        return running

    def complete(self, answer: Part[Row] | StoreError) -> None:
        """``known`` from the task's row. Raises StoreError, ProtocolError."""
        if isinstance(answer, StoreError):
            raise answer
        if not answer.found:
            raise ProtocolError(f"task {self.task} runs and is not in the store")
        self.known = known_of(answer.found[0])

    def is_attempt(self, task: int, attempt: int) -> bool:
        return (self.task, self.attempt) == (task, attempt)


def of_row(row: Row) -> Running:
    """The attempt of a running task, from its row in the store."""
    on_deploy = row.on_deploy.value if row.on_deploy else "finish"
    return Running(row.id, row.queue, row.name, row.owner, on_deploy, row.attempt, known_of(row))


def known_of(row: Row) -> Known:
    return Known(*(getattr(row, field) for field in Known._fields))


def owner_of(row: Row | Known) -> tuple[str, Identity]:
    """The name of the slot's file, and the process of the worker that was given the task."""
    assert row.worker is not None, "a running task has an owner"
    worker, pid, start, boot = cbor.loads(row.worker)
    return layout.file_name(worker), Identity(pid, start, boot)

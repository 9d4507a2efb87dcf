"""One worker, as the master holds it in memory; ``workers`` owns them."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

from taskd.config import Limits
from taskd.errors import ProtocolError
from taskd.master.fleet.revision import Revision
from taskd.master.fleet.running import Running
from taskd.master.loop import Messages
from taskd.model.table import after
from taskd.model.worker import WORKERS, WorkerEvent, WorkerState
from taskd.posix import process
from taskd.posix.cleaners import Patience
from taskd.record import Record
from taskd.slot import reader
from taskd.upgrade.snapshot import Carried


class Parent(Enum):
    """The process that reaps a worker, and so reports its death."""

    ZYGOTE = "zygote"
    MASTER = "master"  # its zygote died
    INIT = "init"  # its zygote and that zygote's master died: a pidfd reports its death


class Probe(Record):
    """The callbacks of a probe worker: ``on_idle``: it is up, or has answered. ``on_message``: its
    answer. ``on_death``: it died, in words."""

    on_idle: Callable[[Worker], None]
    on_message: Callable[[dict[str, Any]], None]
    on_death: Callable[[str], None]


class Worker:
    """``running``: its attempt, from the claim until the end is recorded."""

    __slots__ = (
        "asked_to_leave",
        "channel",
        "id",
        "is_grouped",
        "limits",
        "parent",
        "patience",
        "pid",
        "revision",
        "running",
        "served",
        "slot_fd",
        "start",
        "state",
        "unready",
    )

    def __init__(self, worker_id: bytes, revision: Revision) -> None:
        self.id = worker_id
        self.revision = revision
        self.state = WorkerState.ASKED
        self.parent = Parent.ZYGOTE
        self.pid = 0
        self.start = 0
        self.channel: Messages | None = None
        self.slot_fd = -1
        self.running: Running | None = None
        self.served = 0
        self.asked_to_leave: str | None = None  # why the master ends its task, if it does
        self.limits: Limits | None = None  # that bind it; None: it had no task yet
        self.is_grouped = True  # in its control group, if it was given one
        self.patience = Patience()  # with processes that it leaves behind
        self.unready: str | None = None  # why it could not begin, by its own report

    def export(self, carried: Carried) -> dict[str, Any]:
        """For the snapshot. ``unready`` is left out, since no worker boots at an exec, and so is
        ``patience``: the next master finds leftovers by itself."""
        return {
            "id": self.id,
            "revision": self.revision.number,
            "state": self.state.value,
            "pid": self.pid,
            "start": self.start,
            "served": self.served,
            "is_ours": self.parent is Parent.MASTER,
            "is_orphan": self.parent is Parent.INIT,
            "limits": None if self.limits is None else list(self.limits),
            "is_grouped": self.is_grouped,
            "asked_to_leave": self.asked_to_leave,
            "has_slot": self.slot_fd >= 0,
            "running": None if self.running is None else self.running.export(),
            "channel": None if self.channel is None else self.channel.export(carried),
        }

    @classmethod
    def restored(cls, fields: dict[str, Any], revision: Revision) -> Worker:
        """From ``export``'s fields, of this version or of the one before; without its channel, slot
        and attempt."""
        worker = cls(fields["id"], revision)
        worker.state = WorkerState(fields["state"])
        worker.pid, worker.start = fields["pid"], fields["start"]
        worker.served = fields["served"]
        if fields["is_ours"]:
            worker.parent = Parent.MASTER
        if fields["is_orphan"]:
            worker.parent = Parent.INIT
        worker.limits = None if fields["limits"] is None else Limits(*fields["limits"])
        worker.is_grouped = fields["is_grouped"]
        worker.asked_to_leave = fields["asked_to_leave"]
        return worker

    def take(self, event: WorkerEvent) -> None:
        self.state = after(WORKERS, self.state, event)

    def says(self, event: WorkerEvent) -> None:
        """As ``take``, for an event that the worker itself reports. Raises ProtocolError if it
        cannot happen in this state."""
        if (self.state, event) not in WORKERS:
            raise ProtocolError(f"a worker that is {self.state.value} says {event.value}")
        self.take(event)

    @property
    def identity(self) -> process.Identity:
        return process.Identity(self.pid, self.start, process.boot_id())

    def mark(self) -> int:
        """The mark in its descendants' environment, 0 if it has none. Raises OSError."""
        return reader.mark_of(self.slot_fd) if self.slot_fd >= 0 else 0

    @property
    def channel_name(self) -> str:
        """The name of its connection in the ledger."""
        return f"worker:{self.id.hex()}"

    @property
    def slot_name(self) -> str:
        """The name of its slot in the ledger."""
        return f"slot:{self.id.hex()}"

    def tell(self, message: dict[str, Any]) -> None:
        if self.channel is not None:
            self.channel.send(message)


class Work(Record):
    """The callbacks of workers that run tasks, for the parts that know what tasks are. The
    composition root sets them as ``Workers.work``.

    ``on_free``: it is idle, and a task was taken for it before. ``on_adopted``: a worker that runs
    a task has connected again. ``on_report``: its message with its progress, or that it waits.
    ``on_ended``: END stands in its slot; raises ProtocolError, Later. ``on_death``: it is dead and
    no process of it lives (with the wait status, if it is known): its slot says what became of its
    attempt.
    """

    on_free: Callable[[Worker, bool], None]
    on_adopted: Callable[[Worker], None]
    on_report: Callable[[Worker, dict[str, Any]], None]
    on_ended: Callable[[Worker, dict[str, Any]], None]
    on_death: Callable[[Worker, int | None], None]

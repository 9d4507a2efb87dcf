"""One worker, as the master holds it in memory. ``workers`` owns them all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from taskd.config import Limits
from taskd.errors import ProtocolError
from taskd.master.fleet.revision import Revision
from taskd.master.fleet.running import Running
from taskd.master.loop.wire import Messages
from taskd.model.table import after
from taskd.model.worker import WORKERS, WorkerEvent, WorkerState
from taskd.posix import process
from taskd.posix.cleaners import Patience
from taskd.record import Record
from taskd.slot import reader


class Probe(Record):
    """Who waits for a probe worker: ``on_idle`` once it is up and after each answer,
    ``on_message`` with an answer, ``on_death`` if it dies before it is forgotten."""

    on_idle: Callable[[Worker], None]
    on_message: Callable[[dict[str, Any]], None]
    on_death: Callable[[str], None]


class Worker:
    """One worker; ``running`` is its task, from the claim until its end is recorded."""

    __slots__ = (
        "asked_to_leave",
        "channel",
        "id",
        "is_grouped",
        "is_orphan",
        "is_ours",
        "limits",
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
        self.pid = 0
        self.start = 0
        self.channel: Messages | None = None
        self.slot_fd = -1
        self.running: Running | None = None
        self.served = 0
        self.is_ours = False  # its zygote died: we are its parent
        self.is_orphan = False  # its zygote died, and so had the master that was above: nobody is
        self.asked_to_leave: str | None = None  # why we end its task, if we do
        self.limits: Limits | None = None  # that it is bound to; None: it had no task yet
        self.is_grouped = True  # in its control group, if it was given one
        self.patience = Patience()  # with what it leaves behind
        self.unready: str | None = None  # why it could not begin, as it said itself

    def take(self, event: WorkerEvent) -> None:
        self.state = after(WORKERS, self.state, event)

    def says(self, event: WorkerEvent) -> None:
        """As ``take``, for what the worker itself reports. Raises ProtocolError out of order."""
        if (self.state, event) not in WORKERS:
            raise ProtocolError(f"a worker that is {self.state.value} says {event.value}")
        self.take(event)

    @property
    def identity(self) -> process.Identity:
        return process.Identity(self.pid, self.start, process.boot_id())

    def mark(self) -> int:
        """What its descendants are told by; 0 if it has none. Raises OSError."""
        return reader.mark_of(self.slot_fd) if self.slot_fd >= 0 else 0

    @property
    def channel_name(self) -> str:
        return f"worker:{self.id.hex()}"

    @property
    def slot_name(self) -> str:
        return f"slot:{self.id.hex()}"

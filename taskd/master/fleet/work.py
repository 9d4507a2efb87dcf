"""What workers say and leave of their attempts: for the rooms above, which know what tasks are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from taskd.master.fleet.worker import Worker
from taskd.record import Record


class Work(Record):
    """Set as ``Workers.work`` by the composition root.

    ``on_adopted``: a worker that runs a task has come back on a connection. ``on_report``: it tells
    its progress, or that it waits. ``on_ended``: END stands in its slot; raises ProtocolError,
    Later. ``on_death``: it is dead and its tree gone (with that wait status, if it is known): its
    slot says what became of its attempt.
    """

    on_adopted: Callable[[Worker], None]
    on_report: Callable[[Worker, dict[str, Any]], None]
    on_ended: Callable[[Worker, dict[str, Any]], None]
    on_death: Callable[[Worker, int | None], None]

"""Recorder: what the context of a running task needs from the process it runs in.

``worker.slot_recorder`` writes to the worker's slot and speaks with the master;
``worker.memory_recorder`` keeps the records in a list, for tests. The methods are called in the
thread that runs the task, but for ``wish``, ``wait_for`` and ``wake``, which any thread may call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from taskd.protocol.saved import Kind
from taskd.record import Record


class Wish(Record):
    """What the task is asked to do. ``kind``: "leave", "cancel" or "timeout"; ``why``: a reason in
    words."""

    kind: str
    why: str


class Recorder(Protocol):
    """Writes the records of one attempt, tells it of wishes, and reports its progress.

    ``id``: the task's. ``attempt``: this attempt's number; the first is 1. ``scratch``: path of a
    directory that is kept over all attempts of this task. ``revision``: name of the release whose
    code runs. ``schedule_slot``: the slot of its schedule that the task is for, in Unix seconds;
    None: it is for none.
    """

    id: str
    attempt: int
    scratch: str
    revision: str
    schedule_slot: float | None

    def append(self, kind: Kind, fields: dict[str, Any], durable: bool = False) -> None:
        """Write one record. ``durable``: synced to disk on return; else within about a second.

        Blocks while the disk is full, and raises Interrupted if the task is asked to leave
        meanwhile; the record is not written in that case.
        """

    @property
    def wants_snapshot(self) -> bool:
        """Whether the records take so much more room than the state that it is to be written."""

    def snapshot(self, saved: bytes) -> None:
        """Write the full state; the records before it are no longer needed."""

    def progress(self, done: int | None, total: int | None, note: str) -> None:
        """Report progress; cheap, since only the latest report is sent."""

    def wish(self) -> Wish | None:
        """What the task is asked to do, or None. Once there is a wish, one remains."""

    def wait_for(self, condition: Callable[[], bool], seconds: float | None = None) -> bool:
        """Wait until ``condition`` holds; it is looked at again on every wish and ``wake``.

        False if it does not hold after ``seconds`` (None: wait without a limit).
        """

    def wake(self) -> None:
        """Make ``wait_for`` look at its condition again."""

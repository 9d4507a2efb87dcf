"""What the context of a running task needs from the process it runs in.

One implementation writes to the worker's slot and speaks with the master; another, in
``worker.memory``, keeps the records in a list for tests. The methods are called in the thread
that runs the task, but for ``wish``, ``wait``, ``wait_for`` and ``wake``, which any thread may
call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from taskd.protocol.saved import Kind
from taskd.record import Record


class Wish(Record):
    """What the task is asked to do. ``kind``: "leave" or "cancel"; ``why``: a reason in words."""

    kind: str
    why: str


class Recorder(Protocol):
    """Keeps the records of one attempt, and carries wishes to it and progress from it."""

    @property
    def id(self) -> str:
        """The task's id."""

    @property
    def attempt(self) -> int:
        """The number of this attempt; the first is 1."""

    @property
    def scratch(self) -> str:
        """The path of a directory that is kept over all attempts of this task."""

    @property
    def revision(self) -> str:
        """The name of the release whose code runs."""

    def append(self, kind: Kind, fields: dict[str, Any], durable: bool = False) -> None:
        """Write one record. ``durable``: synced to disk on return; else within about a second.

        Blocks while the disk is full, and raises Interrupted if the task is asked to leave then;
        the record is not written in that case.
        """

    @property
    def wants_snapshot(self) -> bool:
        """The records take so much more room than what they add up to that it is time."""

    def snapshot(self, saved: bytes) -> None:
        """Write the full state; what was written before is no longer needed."""

    def progress(self, done: int | None, total: int | None, note: str) -> None:
        """Report progress; cheap, since only the latest counts."""

    def wish(self) -> Wish | None:
        """What the task is asked to do, or None. Once there is a wish, one remains."""

    def wait(self, seconds: float) -> bool:
        """Sleep. True, at once, when there is a wish; False when all the seconds are over."""

    def wait_for(self, condition: Callable[[], bool], seconds: float | None = None) -> bool:
        """Wait until ``condition`` holds; it is looked at again on every wish and ``wake``.

        False when it does not hold after all the seconds.
        """

    def wake(self) -> None:
        """Make ``wait_for`` look at its condition again."""

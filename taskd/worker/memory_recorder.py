"""A Recorder for tests: the records of an attempt in a list, encoded as they would be in a slot.

The state that an attempt has saved is rebuilt from these bytes alone, so that a test that resumes
from it proves that the records suffice. The clock stands still but for sleeps, which take no time.
A test can end the attempt before any record as if the process was killed, and ask it to leave.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from cbor2 import dumps, loads

from taskd.api.recorder import Wish
from taskd.protocol.saved import Kind, Saved
from taskd.record import Record

SAVING = frozenset({Kind.STEP, Kind.LOOP, Kind.CHECKPOINT})
"""Records with something new; a snapshot only repeats what other records have saved."""


class Killed(BaseException):
    """Stands for the death of the process: from now on every call of the context raises it."""


class Written(Record):
    """One record, its fields as the bytes that a slot would hold."""

    kind: Kind
    fields: bytes
    durable: bool


class MemoryRecorder:
    """Implements ``recorder.Recorder``.

    ``before`` and ``after`` are called with each record's kind and fields before and after it is
    written, ``at_safe_point`` each time the task looks for a wish; they may call ``kill`` and
    ``ask``. ``snapshot_every``: a snapshot is wanted after so many records.
    """

    def __init__(
        self,
        *,
        scratch: str = "",
        attempt: int = 1,
        id: str = "1",
        revision: str = "test",
        schedule_slot: float | None = None,
        now: float = 1_700_000_000.0,
        snapshot_every: int | None = None,
        before: Callable[[Kind, dict[str, Any]], None] | None = None,
        after: Callable[[Kind, dict[str, Any]], None] | None = None,
        at_safe_point: Callable[[], None] | None = None,
    ) -> None:
        self.id = id
        self.attempt = attempt
        self.scratch = scratch
        self.revision = revision
        self.schedule_slot = schedule_slot
        self.now = now
        self.killed = False
        self.records: list[Written] = []
        self.reports: list[tuple[int | None, int | None, str]] = []
        self._before = before
        self._after = after
        self._at_safe_point = at_safe_point
        self._snapshot_every = snapshot_every
        self._since_snapshot = 0
        self._wish: Wish | None = None
        self._changed = threading.Condition()

    # ── what a test does ─────────────────────────────────────────────────────────────────────

    def ask(self, kind: str = "leave", why: str = "asked to leave") -> None:
        """Wish that the task leaves, or with "cancel" that it is cancelled."""
        with self._changed:
            self._wish = Wish(kind, why)
            self._changed.notify_all()

    def kill(self) -> None:
        """End the attempt here. Raises Killed."""
        self.killed = True
        raise Killed

    def rebuild(self, base: Saved | None, version: int = 1) -> Saved:
        """What the next attempt begins with: ``base`` and all records, each from its bytes.

        Without a record of SAVING it is ``base``, also if a snapshot was written.
        """
        saved = Saved(version) if base is None else Saved.decode(base.encode())
        if any(record.kind in SAVING for record in self.records):
            for record in self.records:
                saved.apply(record.kind, loads(record.fields))
        return Saved.decode(saved.encode())

    def clock(self) -> float:
        """The time, in Unix seconds."""
        return self.now

    # ── the Recorder ───────────────────────────────────────────────────────────────────────────

    def append(self, kind: Kind, fields: dict[str, Any], durable: bool = False) -> None:
        self._check_alive()
        if self._before is not None:
            self._before(kind, fields)
        self.records.append(Written(kind, dumps(fields), durable))
        self._since_snapshot += 1
        if self._after is not None:
            self._after(kind, fields)

    @property
    def wants_snapshot(self) -> bool:
        return self._snapshot_every is not None and self._since_snapshot >= self._snapshot_every

    def snapshot(self, saved: bytes) -> None:
        self.append(Kind.SNAPSHOT, {"saved": saved}, True)
        self._since_snapshot = 0

    def progress(self, done: int | None, total: int | None, note: str) -> None:
        self._check_alive()
        self.reports.append((done, total, note))

    def wish(self) -> Wish | None:
        self._check_alive()
        if self._at_safe_point is not None:
            self._at_safe_point()
        return self._wish

    def wait_for(self, condition: Callable[[], bool], seconds: float | None = None) -> bool:
        with self._changed:
            if seconds is None:
                return self._changed.wait_for(condition)
            if not condition():
                self.now += seconds
            return condition()

    def wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _check_alive(self) -> None:
        if self.killed:
            raise Killed

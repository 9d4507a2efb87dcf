"""SlotRecorder: writes a running task's records to the worker's slot.

Runs in the worker's main thread. While the disk is full it waits: the master is told so, and a
wish to leave ends the wait.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from taskd.api.interrupt import Interrupted
from taskd.posix import native
from taskd.protocol.saved import Kind
from taskd.slot.writer import SlotFull, SlotLost, SlotWriter
from taskd.worker import output
from taskd.worker.control import Control, Order

FULL_RETRY = 1.0
"""Seconds between two attempts to save on a full disk."""

T = TypeVar("T")


class SlotRecorder:
    """Implements ``api.recorder.Recorder`` for one attempt."""

    def __init__(self, control: Control, slot: SlotWriter, order: Order, revision: str) -> None:
        self._control = control
        self._slot = slot
        self._task = order.task
        self.id = str(order.task)
        self.attempt = order.attempt
        self.scratch = order.scratch
        self.revision = revision
        self.schedule_slot = order.slot
        self.wish = control.wish
        self.wait_for = control.wait_for
        self.wake = control.wake

    def append(self, kind: Kind, fields: dict[str, Any], durable: bool = False) -> None:
        self.save(lambda: self._slot.append(kind, fields))
        if durable:
            self.save(self._slot.sync)  # may be repeated, without the record being repeated
        self._control.saved(durable)

    @property
    def wants_snapshot(self) -> bool:
        return self._slot.wants_snapshot

    def snapshot(self, saved: bytes) -> None:
        self.save(lambda: self._slot.snapshot(saved))
        self._control.saved(durable=True)

    def save(self, write: Callable[[], T], *, can_leave: bool = True) -> T:
        """Call ``write``, which writes to the slot, until the disk is not full; returns its result.

        ``can_leave``: as for ``retry``. The process ends if the slot is lost: its attempt is
        continued by another one, from the records in the slot, whose file the master holds too.
        """
        try:
            return self.retry("cannot save", write, (SlotFull,), can_leave=can_leave)
        except SlotLost as lost:
            with suppress(Exception):  # the standard streams may be closed, too
                why = f"taskd: {lost}; the task continues in another process"
                print(why, file=sys.stderr, flush=True)
            output.leave(os.EX_IOERR)

    def retry(
        self,
        what: str,
        action: Callable[[], T],
        passing: tuple[type[Exception], ...],
        *,
        can_leave: bool = True,
    ) -> T:
        """Call ``action`` once a second until it raises none of ``passing``; returns its result.

        Meanwhile the master shows that the task waits, with ``what`` and the error as the reason.
        Raises Interrupted at a wish to leave; without ``can_leave`` it waits all the same.
        """
        waited = False
        while True:
            try:
                found = action()
            except passing as error:
                waited = True
                why = f"{what}: {error}"
                self._control.say_waiting(self._task, self.attempt, why)
                if not can_leave:
                    native.sleep(FULL_RETRY)
                elif self.wait_for(lambda: self.wish() is not None, FULL_RETRY):
                    raise Interrupted(why) from None
            else:
                if waited:
                    self._control.say_waiting(self._task, self.attempt, "")
                return found

    def progress(self, done: int | None, total: int | None, note: str) -> None:
        self._control.progress(
            {
                "task": self._task,
                "attempt": self.attempt,
                "done": done,
                "total": total,
                "note": note,
            }
        )

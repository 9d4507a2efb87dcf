"""Where a running task's records go: the real Recorder, over this worker's slot.

Runs in the worker's main thread. A full disk is waited out, visibly (the master is told) and
interruptibly (a wish to leave ends the wait).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from taskd.api.interrupt import Interrupted
from taskd.api.recorder import Wish
from taskd.protocol.saved import Kind
from taskd.slot.writer import SlotFull, SlotLost, SlotWriter
from taskd.worker.control import FULL_RETRY, Control, Order, give_up

T = TypeVar("T")


class SlotRecorder:
    """Implements ``recorder.Recorder`` for one attempt."""

    def __init__(self, control: Control, slot: SlotWriter, order: Order, revision: str) -> None:
        self._control = control
        self._slot = slot
        self._task, self._attempt = order.task, order.attempt
        self.id = str(order.task)
        self.attempt = order.attempt
        self.scratch = order.scratch
        self.revision = revision

    def append(self, kind: Kind, fields: dict[str, Any], durable: bool = False) -> None:
        self._patiently(lambda: self._slot.append(kind, fields))
        if durable:
            self._patiently(self._slot.sync)  # once more, without the record once more
        self._control.saved(durable)

    @property
    def wants_snapshot(self) -> bool:
        return self._slot.wants_snapshot

    def snapshot(self, saved: bytes) -> None:
        self._patiently(lambda: self._slot.snapshot(saved))
        self._control.saved(durable=True)

    def patiently(
        self, what: str, action: Callable[[], T], passing: tuple[type[Exception], ...]
    ) -> T:
        """What ``action`` gives, as soon as it does not raise one of ``passing``: until then the
        task waits, and shows that it ``what``, and why. Raises Interrupted at a wish to leave."""
        waited = False
        while True:
            try:
                found = action()
                break
            except passing as error:
                waited = True
                why = f"{what}: {error}"
                self._control.say_waiting(self._task, self._attempt, why)
                if self._control.wait(FULL_RETRY):
                    raise Interrupted(why) from None
        if waited:
            self._control.say_waiting(self._task, self._attempt, "")
        return found

    def _patiently(self, save: Callable[[], object]) -> None:
        try:
            self.patiently("cannot save", save, (SlotFull,))
        except SlotLost as lost:
            give_up(lost)

    def wish(self) -> Wish | None:
        return self._control.wish()

    def wait(self, seconds: float) -> bool:
        return self._control.wait(seconds)

    def wait_for(self, condition: Callable[[], bool], seconds: float | None = None) -> bool:
        return self._control.wait_for(condition, seconds)

    def wake(self) -> None:
        self._control.wake()

    def progress(self, done: int | None, total: int | None, note: str) -> None:
        report = {"task": self._task, "attempt": self._attempt}
        self._control.progress(report | {"done": done, "total": total, "note": note})

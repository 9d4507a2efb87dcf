"""How long tasks that are over are kept: by state, and by queue where that says otherwise.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from taskd.model.task import State
from taskd.record import Record


class Ages(Record):
    """Seconds from a task's end, by its state: ``usual``, or those of its queue in ``queues``.
    Infinity: for ever."""

    usual: Mapping[State, float]
    queues: Mapping[str, Mapping[State, float]]

    def of(self, queue: str, state: State) -> float:
        return self.queues.get(queue, self.usual)[state]

    @property
    def shortest(self) -> float:
        return min(min(ages.values()) for ages in (self.usual, *self.queues.values()))

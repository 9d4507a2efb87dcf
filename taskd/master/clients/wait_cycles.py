"""Deadlocks of tasks that wait for each other: the request to wait that would close one is refused.

A task may submit other tasks and wait for them. If all places of a queue are taken by tasks that
wait for tasks queued there, none of them ever goes on. The last one that asks to wait is refused,
and can raise, which frees a place. A deadlock that comes about otherwise (over several queues, at
the ceiling for all queues, or by a task that is requeued meanwhile) is not found; ``show`` says
that its tasks wait for a place.
"""

from __future__ import annotations

import os

from taskd.config import Config
from taskd.errors import Refused
from taskd.master.attempts import Attempts
from taskd.master.clients.client import Client
from taskd.master.clients.streams import Streams
from taskd.master.loop import Storage
from taskd.model.task import State
from taskd.paths import Places
from taskd.record import Record
from taskd.store.api import Row


class WaitCycles(Record):
    config: Config
    places: Places
    storage: Storage
    attempts: Attempts
    streams: Streams

    def waiter(self, client: Client, scratch: str | None) -> int | None:
        """The running task that waits, by its scratch directory (a task of another daemon may have
        the same number, but not the same directory). Only a client of control.sock is believed, as
        tasks are: a submitter's false claim could have the waits of other users refused."""
        name = os.path.basename(scratch or "")
        if not client.is_control or not name.isascii() or not name.isdigit() or len(name) > 18:
            return None
        task = int(name)
        return task if task in self.attempts and scratch == self.places.task_scratch(task) else None

    def check(self, within: int | None, rows: list[Row]) -> None:
        """Raises Refused if the task ``within`` would wait for one of ``rows`` for ever."""
        if within is None:
            return
        for row in rows:
            if self._needs_a_place(row) and self._all_wait(within, row.queue):
                raise Refused(
                    f"task {row.id} waits for a place in queue '{row.queue}', whose places are all "
                    "taken by tasks that wait for such ones: none of them would ever go on. Submit "
                    "what is waited for to another queue"
                )

    def _needs_a_place(self, row: Row) -> bool:
        return row.state is State.QUEUED and row.id not in self.attempts

    def _all_wait(self, within: int, queue: str) -> bool:
        """Whether all places of ``queue`` are taken by tasks that wait for tasks queued there;
        ``within`` is the last of them."""
        there = {running.task for running in self.attempts.all() if running.queue == queue}
        if within not in there or len(there) < self.config.concurrency(queue):
            return False
        waits: dict[int | None, set[int]] = {}
        for stream in self.streams.within():
            waits.setdefault(stream.within, set()).update(stream.open)
        for other in there - {within}:
            rows = [self.storage.reader.task(task) for task in waits.get(other, ())]
            if not any(row and row.queue == queue and self._needs_a_place(row) for row in rows):
                return False
        return True

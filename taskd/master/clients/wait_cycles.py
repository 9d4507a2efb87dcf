"""Tasks that wait for each other: a wait that could never end is refused when it begins.

A task may submit others and wait for them. If all places of a queue are taken by tasks that wait
for one that is queued there, none of them ever goes on. The last one to wait is told, and can
raise, which frees a place. What comes about otherwise (over several queues, at the ceiling for all
of them, by a task that is requeued meanwhile) is not found; ``show`` says that those wait for a
place.
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
from taskd.store.api import Row


class WaitCycles:
    def __init__(
        self, config: Config, places: Places, storage: Storage, attempts: Attempts, streams: Streams
    ) -> None:
        self._config = config
        self._places = places
        self._storage = storage
        self._attempts = attempts
        self._streams = streams

    def waiter(self, client: Client, scratch: str | None) -> int | None:
        """The running task that waits, by its scratch directory (a daemon's own: another one has a
        task of that number, too). Only a client that may do everything is believed, as tasks may:
        another one that says so could make other people's waits be refused."""
        name = os.path.basename(scratch or "")
        if not client.is_control or not name.isascii() or not name.isdigit() or len(name) > 18:
            return None
        task = int(name)
        is_known = task in self._attempts and scratch == self._places.task_scratch(task)
        return task if is_known else None

    def check(self, within: int | None, rows: list[Row]) -> None:
        """Raise Refused if the task ``within`` would wait for one of ``rows`` for ever."""
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
        return row.state is State.QUEUED and row.id not in self._attempts

    def _all_wait(self, within: int, queue: str) -> bool:
        """Whether all places of ``queue`` are taken by tasks that wait for one that is queued
        there; the task ``within`` is about to."""
        there = {running.task for running in self._attempts.all() if running.queue == queue}
        if within not in there or len(there) < self._config.concurrency(queue):
            return False
        waits: dict[int | None, set[int]] = {}
        for stream in self._streams.within():
            waits.setdefault(stream.within, set()).update(stream.open)
        others = there - {within}
        return all(self._waits_there(waits.get(other, set()), queue) for other in others)

    def _waits_there(self, tasks: set[int], queue: str) -> bool:
        rows = [self._storage.reader.task(task) for task in tasks]
        return any(row and row.queue == queue and self._needs_a_place(row) for row in rows)

"""Deadlocks of tasks that wait for each other: the request to wait that would close one is refused.

A task may submit other tasks and wait for them. If all places of a queue are taken by tasks that
wait for tasks queued there, or for one another, none of them ever goes on. The last one that asks
to wait is refused, and can raise, which frees a place. A deadlock that comes about otherwise (over
several queues, at the ceiling for all queues, or by a task that is requeued meanwhile) is not
found; ``show`` says that its tasks wait for a place.
"""

from __future__ import annotations

import os

from taskd.errors import Refused
from taskd.master.attempts import Attempts, Concurrency
from taskd.master.clients.client import Client
from taskd.master.clients.streams import Streams
from taskd.model.task import State
from taskd.paths import Places
from taskd.record import Record
from taskd.store.queries import Glance

Others = dict[int, set[int]]
"""What each of some running tasks waits for."""


class WaitCycles(Record):
    concurrency: Concurrency
    places: Places
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

    def others(self, within: int | None) -> Others | None:
        """The tasks that take all other places in the queue in which ``within`` runs, each with
        what it waits for. None: ``within`` is None, or there is a place left."""
        running = None if within is None else self.attempts.get(within)
        if running is None:
            return None
        there = {each.task for each in self.attempts.all() if each.queue == running.queue}
        if len(there) < self.concurrency.of(running.queue):
            return None
        waits: Others = {task: set() for task in there if task != within}
        for stream in self.streams.within():
            if stream.within in waits:
                waits[stream.within] |= stream.open
        return waits

    def endless(
        self, within: int, tasks: list[Glance], others: Others, known: list[Glance]
    ) -> Refused | None:
        """Why the task ``within`` would wait for one of ``tasks`` for ever, if it would. ``known``:
        what ``others`` wait for; a task that is not there may need a place, too."""
        running = self.attempts.get(within)
        assert running is not None, "its queue has others"
        queue = running.queue
        has_a_place = {each.id for each in known if not self._needs_a_place(each, queue)}
        stuck = _stuck(within, others, has_a_place)
        own = {task.id for task in tasks}
        wanted = sorted(own.union(*others.values()) - has_a_place)
        if len(stuck) <= len(others) or not wanted or not (own - has_a_place or own & stuck):
            return None
        return Refused(
            f"task {wanted[0]} waits for a place in queue '{queue}', whose places are all "
            "taken by tasks that wait for such ones: none of them would ever go on. Submit "
            "what is waited for to another queue"
        )

    def _needs_a_place(self, task: Glance, queue: str) -> bool:
        is_queued = task.queue == queue and task.state is State.QUEUED
        return is_queued and task.id not in self.attempts


def _stuck(within: int, others: Others, has_a_place: set[int]) -> set[int]:
    """``within``, and those of ``others`` that cannot go on before ``within`` does, or before a
    place is free."""
    stuck, size = {within}, 0
    while size < len(stuck):
        size = len(stuck)
        stuck |= {task for task, waits in others.items() if waits & stuck or waits - has_a_place}
    return stuck

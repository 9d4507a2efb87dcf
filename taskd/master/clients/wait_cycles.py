"""Tasks that wait for each other: a wait that could never end is refused when it begins.

A task may submit others and wait for them. If all places of a queue are taken by tasks that wait
for one that is queued there, none of them ever goes on. The last one to wait is told, and can
raise, which frees a place. What comes about otherwise (over several queues, at the ceiling for all
of them, by a task that is requeued meanwhile) is not found; ``show`` says that those wait for a
place.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from taskd.errors import Refused
from taskd.model.task import State
from taskd.store.api import Row

if TYPE_CHECKING:
    from taskd.master.clients.clients import Client
    from taskd.master.master import Master


def waiter(master: Master, client: Client, scratch: str | None) -> int | None:
    """The running task that waits, by its scratch directory (a daemon's own: another one has a task
    of that number, too). Only of who may do everything is it believed, as tasks may: who else says
    so could make other people's waits be refused."""
    name = os.path.basename(scratch or "")
    if not client.is_control or not name.isascii() or not name.isdigit() or len(name) > 18:
        return None
    task = int(name)
    is_ours = task in master.attempts and scratch == master.places.task_scratch(task)
    return task if is_ours else None


def check(master: Master, within: int | None, rows: list[Row]) -> None:
    """Raise Refused if the task ``within`` would wait for one of ``rows`` for ever."""
    if within is None:
        return
    for row in rows:
        if _needs_a_place(master, row) and _all_wait(master, within, row.queue):
            raise Refused(
                f"task {row.id} waits for a place in queue '{row.queue}', whose places are all "
                "taken by tasks that wait for such ones: none of them would ever go on. Submit "
                "what is waited for to another queue"
            )


def _needs_a_place(master: Master, row: Row) -> bool:
    return row.state is State.QUEUED and row.id not in master.attempts


def _all_wait(master: Master, within: int, queue: str) -> bool:
    """Whether all places of ``queue`` are taken by tasks that wait for one that is queued there;
    the task ``within`` is about to."""
    there = {running.task for running in master.attempts.all() if running.queue == queue}
    if within not in there or len(there) < master.config.concurrency(queue):
        return False
    waits: dict[int | None, set[int]] = {within: set()}
    for stream in master.streams.within():
        waits.setdefault(stream.within, set()).update(stream.open)
    others = there - {within}
    return all(_waits_there(master, waits.get(other, set()), queue) for other in others)


def _waits_there(master: Master, tasks: set[int], queue: str) -> bool:
    rows = [master.reader.task(task) for task in tasks]
    return any(row and row.queue == queue and _needs_a_place(master, row) for row in rows)

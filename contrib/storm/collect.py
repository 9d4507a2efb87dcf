"""After the storm: what any client can fetch of all tasks, written down for the checker."""

from __future__ import annotations

import taskd
from contrib.storm.place import Place

BATCH = 5000


def collect(place: Place) -> None:
    """Every task with its result, and all events."""
    with taskd.Client(place.sockets, timeout=60) as client:
        ids = sorted(task.id for task in client.tasks(limit=10**9))
        for task in ids:
            found = client.task(task)
            place.tell(
                "tasks.jsonl",
                id=task,
                name=found.name,
                state=found.state,
                queue=found.queue,
                reason=found.reason,
                attempt=found.attempt,
                result=found.result,
                error=found.error,
            )
        for start in range(0, len(ids), BATCH):
            for event in client.follow(ids[start : start + BATCH]):
                place.tell("events.jsonl", **event)

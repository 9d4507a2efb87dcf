"""One process that follows: a stream for every few tasks that were acknowledged.

What came is in ``seen/followed.jsonl``: a record with the tasks of each stream, then its events.

    python -m contrib.storm.follower DIRECTORY
"""

from __future__ import annotations

import json
import os
import sys
import threading
import uuid
from collections.abc import Iterator

import taskd
from contrib.storm import clientprocess
from contrib.storm.place import Place, load
from taskd.errors import Error

STREAMS = 6
TASKS = 20
"""Tasks that one stream follows."""

LOOK = 0.5
"""Seconds between two looks at what was acknowledged."""


def acknowledged(path: str) -> Iterator[list[int]]:
    """The ids that came since the last look, again and again; without repeats."""
    known: set[int] = set()
    offset = 0
    while True:
        found: list[int] = []
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                file.seek(offset)
                while (text := file.readline()).endswith("\n"):
                    offset = file.tell()
                    task = json.loads(text).get("task")
                    if task is not None and task not in known:
                        known.add(task)
                        found.append(task)
        yield found


def follow(
    place: Place, client: taskd.Client, tasks: list[int], places: threading.Semaphore
) -> None:
    """One stream, until all of ``tasks`` are settled."""
    stream = uuid.uuid4().hex
    place.tell("followed.jsonl", stream=stream, tasks=tasks)
    try:
        for event in client.follow(tasks):
            place.tell("followed.jsonl", stream=stream, event=event)
    except Error as error:
        place.tell("findings.jsonl", finding=f"a stream of events ended: {error}")
    finally:
        places.release()


def main() -> None:
    place = load(sys.argv[1])
    clientprocess.begin()
    client = taskd.Client(place.sockets, timeout=60)
    client.status()  # from now on it is patient: a daemon that was never there is not waited for
    places = threading.Semaphore(STREAMS)
    waiting: list[int] = []
    for found in acknowledged(place.seen("clients.jsonl")):
        waiting += found
        while len(waiting) >= TASKS and places.acquire(blocking=False):
            batch, waiting = waiting[:TASKS], waiting[TASKS:]
            threading.Thread(
                target=follow, args=(place, client, batch, places), daemon=True
            ).start()
        if clientprocess.ended.wait(LOOK):
            break


if __name__ == "__main__":
    main()

"""The operator of a storm: retries what is held, as one would who looked at why, and waits."""

from __future__ import annotations

import threading
import time

import taskd
from contrib.storm.place import Place
from taskd.errors import Error

LOOK = 0.5
"""Seconds between two looks at what is held."""

UNDER_WAY = ("queued", "scheduled", "running", "held")


class Operator(threading.Thread):
    """``operating`` is held while it acts: nobody else may change tasks between its look and it."""

    def __init__(self, place: Place, operating: threading.Lock) -> None:
        super().__init__(daemon=True)
        self._place = place
        self._operating = operating
        self._over = threading.Event()
        self.retried = 0

    def run(self) -> None:
        with taskd.Client(self._place.sockets, timeout=5) as client:
            while not self._over.wait(LOOK):
                try:
                    with self._operating:
                        self._retry_all(client)
                except Error:
                    continue  # the daemon is away, or its disk is full

    def _retry_all(self, client: taskd.Client) -> None:
        for task in client.tasks(state="held", limit=1000):
            self._place.tell("held.jsonl", task=task.id, why=task.reason)
            client.retry(task.id)
            self.retried += 1

    def end(self) -> None:
        self._over.set()
        self.join()


def wait_until_all_ended(place: Place, but: int, within: float) -> bool:
    """Whether all tasks but ``but`` have ended in that time."""
    deadline = time.monotonic() + within
    with taskd.Client(place.sockets, timeout=30) as client:
        while time.monotonic() < deadline:
            found = [task.id for state in UNDER_WAY for task in client.tasks(state=state)]
            if not [task for task in found if task != but]:
                return True
            time.sleep(0.1)
    return False

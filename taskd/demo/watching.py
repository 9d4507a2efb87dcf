"""What goes on beside the screen: threads that follow, ping and deploy.

Each has a client of its own, and only puts what it learns into the queue that it was given. They
are daemon threads: the demo's end does not wait for them.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

import taskd
from taskd.record import Record

PAUSE = 0.01
"""Seconds between two pings."""


class Told(Record):
    """One item of a follow stream."""

    item: dict[str, Any]


class Deployed(Record):
    """The deploy went well: the daemon's answer."""

    answer: dict[str, Any]


class Trouble(Record):
    """Something failed that should not have."""

    what: str
    error: Exception


News = Told | Deployed | Trouble


class Pings(Record):
    """Seconds that each answer took, over one connection."""

    took: list[float]

    @property
    def longest(self) -> float:
        return max(self.took, default=0.0)

    @property
    def usual(self) -> float:
        return statistics.median(self.took) if self.took else 0.0


def follow(client: taskd.Client, tasks: Sequence[int], news: SimpleQueue[News]) -> None:
    """Follow the tasks over one connection, until all have ended."""

    def run() -> None:
        for item in client.follow(tasks, progress=True):
            news.put(Told(item))

    _start("following the tasks", run, news)


def deploy(client: taskd.Client, news: SimpleQueue[News]) -> None:
    """What ``taskctl reload`` does."""
    _start("the deploy", lambda: news.put(Deployed(client.reload())), news)


def ping(client: taskd.Client, stop: threading.Event, news: SimpleQueue[News]) -> Pings:
    """Ask for the status, again and again, until ``stop``; the list grows meanwhile."""
    pings = Pings([])

    def run() -> None:
        while not stop.is_set():
            began = time.monotonic()
            client.status()
            pings.took.append(time.monotonic() - began)
            stop.wait(PAUSE)

    _start("pinging the daemon", run, news)
    return pings


def _start(what: str, run: Callable[[], None], news: SimpleQueue[News]) -> None:
    def body() -> None:
        try:
            run()
        except Exception as error:  # the boundary: a thread has nobody else to tell
            news.put(Trouble(what, error))

    threading.Thread(target=body, name=what, daemon=True).start()

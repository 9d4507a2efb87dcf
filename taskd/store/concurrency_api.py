"""The store's contract about the concurrency of a queue for now: a part of ``api``."""

from __future__ import annotations

from taskd.record import Record

MOST = 1000
"""Queues of which one may be said at a time."""


class SetConcurrency(Record):
    """Of ``queue`` so many ``tasks`` may run at once (None: as taskd.toml says), for ``seconds``
    (None: until it is said anew). Result: whether something was said of it. Nothing that runs is
    ended by it. Refused where MOST others are in force."""

    queue: str
    tasks: int | None
    by: int
    at: float
    seconds: float | None
    why: str


class Said(Record):
    """``by``: the user's id; ``at``: since when, ``until``: when it is over (None: it is not), in
    Unix seconds."""

    queue: str
    tasks: int
    by: int
    at: float
    until: float | None
    why: str

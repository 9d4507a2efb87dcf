"""The stores that the conformance suite is run through: a second store is one more line."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from taskd.store.api import Store
from taskd.store.queries import Reader
from taskd.store.reader import SqliteReader
from taskd.store.sqlite import SqliteStore

Clock = Callable[[], float]
"""Tells Unix seconds."""


class Kind(NamedTuple):
    """How to open one kind of store in a ``place``, the path of a directory that is empty at first.

    ``store``: opens the writing side, and makes the store where there is none; again after it was
    closed, and after the process that had it open was killed. ``reader``: opens a reading side,
    while the writing side is open in the same process. Both go by the clock that they are given.
    """

    store: Callable[[str, Clock], Store]
    reader: Callable[[str, Clock], Reader]


def _file(place: str) -> str:
    return os.path.join(place, "store.db")


STORES: dict[str, Kind] = {
    "sqlite": Kind(
        lambda place, clock: SqliteStore(_file(place), clock),
        lambda place, clock: SqliteReader(_file(place), clock),
    ),
}

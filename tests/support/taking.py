"""Take: one task by its number, or whatever is next, whatever its kind."""

from __future__ import annotations

import itertools
from typing import Any

from support.answers import parts

from taskd.store.api import (
    Offer,
    Take,
)
from taskd.store.queries import Ready
from taskd.store.values import Kind

_NUMBERS = itertools.count()


class EveryKind(dict[Kind, int]):
    """Routes that have every kind."""

    def __contains__(self, kind: object) -> bool:
        return True

    def __getitem__(self, kind: Kind) -> int:
        return 1

    get = __getitem__  # type: ignore[assignment]


def new_worker() -> bytes:
    """An identity that no other worker has."""
    return b"worker %d" % next(_NUMBERS)


def claim(
    task: int, revision: str = "r1", at: float = 2.0, queue: str = "default", worker: bytes = b""
) -> Take:
    """The task is taken, if it is ready in ``queue``, and no other."""
    offer = Offer(worker or new_worker(), 1, revision)
    return Take(queue, {}, {task: 1}, (offer,), 1, at)


def take(count: int, queue: str = "default", at: float = 2.0) -> Take:
    """The next ``count`` tasks are taken."""
    offers = tuple(Offer(new_worker(), 1, "r1") for _ in range(count))
    return Take(queue, EveryKind(), {}, offers, 1 << 30, at)


def ready(reader: Any, queue: str, limit: int = 100) -> list[int]:
    """The tasks that are ready in ``queue``, in the order in which they are taken."""
    wanted = Ready("", {queue: limit}, 0, EveryKind(), {}, limit)
    found = itertools.chain.from_iterable(parts(reader, wanted))
    return [candidate.task for part in found for _, candidate in part.tasks]

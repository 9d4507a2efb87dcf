"""A store that loses the answers of chosen commits, as a connection that breaks does.

For tests, and for a storm's daemon (``losing_daemon/sitecustomize.py``). The writer thread must
find out what came of each, and nobody else may notice.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from taskd.errors import StoreError, StoreUnknown
from taskd.store.api import (
    Applied,
    Operation,
    Store,
)


class Lost(NamedTuple):
    """What becomes of one commit. ``committed``: it is made before its answer is lost, else nothing
    of it happens. ``questions``: how many questions about it find the store away."""

    committed: bool
    questions: int = 0


Which = Callable[[int, int], Lost | None]
"""From a batch's number, and how often it has been tried before, to its fate; None: as usual."""


class LosesAnswers:
    """``api.Store`` over ``store``; ``which`` chooses."""

    def __init__(self, store: Store, which: Which) -> None:
        self._store = store
        self._which = which
        self._tried = (0, 0)  # the last batch, and how often
        self._away = 0

    def apply(self, number: int, operations: Sequence[Operation]) -> list[Applied]:
        last, tries = self._tried
        tries = tries if last == number else 0
        self._tried = number, tries + 1
        lost = self._which(number, tries)
        if lost is None:
            return self._store.apply(number, operations)
        if lost.committed:
            self._store.apply(number, operations)
        self._away = lost.questions
        raise StoreUnknown("the answer of the commit was lost, as planned")

    def last(self) -> int:
        return self._store.last()

    def outcome(self, number: int) -> list[Applied] | None:
        if self._away:
            self._away -= 1
            raise StoreError("the store is away, as planned")
        return self._store.outcome(number)

    def checkpoint(self) -> None:
        self._store.checkpoint()

    def shrink(self, size: int) -> None:
        self._store.shrink(size)

    def compact(self) -> None:
        self._store.compact()

    def close(self) -> None:
        self._store.close()


def by_chance(rate: float, told: str) -> Which:
    """Loses that part of all answers; for each a line is appended to the file ``told``."""

    def which(number: int, tries: int) -> Lost | None:
        dice = random.Random(f"{number} {tries}")
        if dice.random() >= rate:
            return None
        lost = Lost(dice.random() < 0.7, dice.choice((0, 0, 0, 1, 3)))
        with open(told, "a", encoding="utf-8") as file:
            file.write(f"{os.getpid()} {number} {tries} {lost.committed} {lost.questions}\n")
        return lost

    return which

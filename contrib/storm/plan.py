"""The sequence of actions that a seed stands for. Pure.

Each kind of action has its own dice, so that another rate of one leaves the others as they were.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from typing import NamedTuple


class Action(NamedTuple):
    """``at``: seconds from the beginning. ``dice``: numbers from 0 to 1, which decide the rest:
    which process, which release, how long."""

    at: float
    kind: str
    dice: tuple[float, float, float]


def actions(seed: str, seconds: float, rates: Mapping[str, float]) -> list[Action]:
    """All of them in order; ``rates`` are per minute."""
    found = [action for kind in rates for action in _of_kind(seed, seconds, kind, rates[kind])]
    return sorted(found)


def _of_kind(seed: str, seconds: float, kind: str, rate: float) -> Iterator[Action]:
    """One in each period, at a moment of chance: so a short storm has its share of each."""
    dice = random.Random(f"{seed} {kind}")
    for number in range(int(seconds * rate / 60)):
        at = (number + dice.random()) * 60 / rate
        yield Action(round(at, 4), kind, (dice.random(), dice.random(), dice.random()))


def digest(plan: list[Action]) -> str:
    """A few letters that are the same for the same plan."""
    return hashlib.sha256(repr(plan).encode()).hexdigest()[:12]

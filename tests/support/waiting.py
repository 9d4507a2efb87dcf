"""The one way in which these tests wait: look at a condition until it holds, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds; only a test that fails ever waits that long."""


def eventually(
    condition: Callable[[], T],
    what: str = "",
    within: float = PATIENCE,
    between: Callable[[float], object] = time.sleep,
) -> T:
    """What ``condition`` gives as soon as that is true. Raises AssertionError at the deadline.

    ``between`` is called between two looks, with the seconds that it may take: to sleep, or to turn
    a loop.
    """
    deadline = time.monotonic() + within
    pause = 0.001
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {within:.0f} s: {what or condition}"
        between(pause)
        pause = min(pause * 1.5, 0.05)
    return found

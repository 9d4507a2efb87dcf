"""Checks of the values that a task's code passes to its context; errors say what to pass instead.

Runs in workers and in tests.
"""

from __future__ import annotations

from inspect import isawaitable
from typing import Any

LARGEST = 2**63 - 1
"""The largest count that a record can carry."""


def check_function(name: str, fn: Any) -> None:
    """Raise TypeError unless a step can call ``fn``."""
    if not callable(fn):
        raise TypeError(
            f"step '{name}' needs a function, not {type(fn).__name__}: pass the function and its "
            f"arguments apart, as in ctx.step('{name}', count_rows, path)"
        )


def is_async(value: Any) -> bool:
    """Whether ``value``, which user code returned, has to be awaited. If so it is closed, else
    Python would warn of a coroutine that was never awaited."""
    if not isawaitable(value):
        return False
    if hasattr(value, "close"):
        value.close()
    return True


def check_count(what: str, value: Any) -> None:
    """Raise TypeError unless ``value`` is None or a count."""
    if value is not None and (type(value) is not int or not 0 <= value <= LARGEST):
        raise TypeError(f"{what} must be a whole number from 0 to {LARGEST}, or None: {value!r}")

"""What a task's code gives to its context, checked, with errors that say what to give instead.

Runs in workers and in tests.
"""

from __future__ import annotations

from inspect import isawaitable
from typing import Any

LARGEST = 2**63 - 1
"""The largest count that a record can carry."""


def check_function(name: str, fn: Any) -> None:
    """Raise TypeError unless ``fn`` is something that a step can call."""
    if not callable(fn):
        raise TypeError(
            f"step '{name}' needs a function, not {type(fn).__name__}: pass the function and its "
            f"arguments apart, as in ctx.step('{name}', count_rows, path)"
        )


def check_not_async(name: str, value: Any) -> None:
    if isawaitable(value):
        if hasattr(value, "close"):
            value.close()  # a coroutine that nobody awaits would complain
        raise TypeError(
            f"step '{name}' is async and the task is not: make the task's function async def and "
            f"write await ctx.step('{name}', …)"
        )


def check_count(what: str, value: Any) -> None:
    if value is not None and (type(value) is not int or not 0 <= value <= LARGEST):
        raise TypeError(f"{what} must be a whole number from 0 to {LARGEST}, or None: {value!r}")


def check_seconds(seconds: Any) -> None:
    if type(seconds) not in (int, float) or not 0 <= seconds < float("inf"):
        raise ValueError(f"the time to sleep must be a number of seconds from 0 on: {seconds!r}")

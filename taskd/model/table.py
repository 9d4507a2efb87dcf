"""Transition tables: a literal mapping of (state, event) to the next state, without a default."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TypeVar

S = TypeVar("S", bound=Enum)
E = TypeVar("E", bound=Enum)


def after(table: Mapping[tuple[S, E], S], state: S, event: E) -> S:
    """The next state. Raises ValueError for a pair that the table lacks: a bug in taskd."""
    try:
        return table[state, event]
    except KeyError:
        kind = type(state).__name__
        raise ValueError(f"{kind} {state.value} cannot take {event.value}") from None

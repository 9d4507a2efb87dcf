"""What answers a client in place of a daemon: ``taskd.testing.eager`` puts itself here.

While one is here, each client of this process asks it; a client that was made meanwhile asks it
ever after, so that no handle of a test reaches a real daemon.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from taskd.record import Protocol

if TYPE_CHECKING:
    from taskd.client.session import Asked


class StandIn(Protocol):
    """Answers in the calling thread."""

    def answer(self, asked: Asked) -> dict[str, Any]:
        """The ``ok`` of a request. Raises its refusal."""

    def items(self, asked: Asked) -> Iterator[dict[str, Any]]:
        """All items of a stream."""


_current: StandIn | None = None


def current() -> StandIn | None:
    return _current


def put(new: StandIn | None) -> StandIn | None:
    """Put ``new`` in place; returns what was there."""
    global _current
    before, _current = _current, new
    return before

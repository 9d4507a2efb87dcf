"""Requests of clients that are answered later, perhaps by the next image, after an exec."""

from __future__ import annotations

from typing import Any

from taskd.errors import Refused
from taskd.record import Protocol, Record


class Caller(Record):
    """A client's request, by numbers that survive an exec."""

    client: int
    request: int


class Answers(Protocol):
    """Answers a request later. A caller that has disconnected is no error."""

    def reply(
        self, caller: Caller, ok: dict[str, Any], short: dict[str, Any] | None = None
    ) -> None:
        """``short``: sent instead if ``ok`` does not fit in a frame."""

    def refuse(self, caller: Caller, error: Refused) -> None: ...

    def has_hung_up(self, caller: Caller) -> bool:
        """The client has disconnected and sent nothing that is still to be read. Known also while
        no client is read."""

    def is_sent(self, caller: Caller) -> bool:
        """All that was sent to the client is on its socket, or the client has disconnected."""


class Gate(Answers, Protocol):
    """The clients, as a deploy pauses them."""

    def pause(self, paused: bool) -> None:
        """Read no client and accept none (True); go on (False)."""

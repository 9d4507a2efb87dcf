"""Clients that wait for an answer which comes later, also behind an exec."""

from __future__ import annotations

from typing import Any, Protocol

from taskd.errors import Refused
from taskd.record import Record


class Caller(Record):
    """A client's request, by numbers that survive an exec."""

    client: int
    request: int


class Answers(Protocol):
    """The clients, as those see them who answer late. A caller that is gone is no error."""

    def reply(
        self, caller: Caller, ok: dict[str, Any], short: dict[str, Any] | None = None
    ) -> None:
        """``short``: of something that was done, if ``ok`` may not fit in a frame."""

    def refuse(self, caller: Caller, error: Refused) -> None: ...

    def has_hung_up(self, caller: Caller) -> bool:
        """It has gone, and had sent nothing more before; told also while nothing is read."""

    def is_sent(self, caller: Caller) -> bool:
        """Nothing waits for it to be read, or it is gone."""


class Gate(Answers, Protocol):
    """The clients, as a deploy holds them up."""

    @property
    def in_flight(self) -> int:
        """Requests that are being carried out."""

    def pause(self, paused: bool) -> None:
        """Read no client and accept none (True); go on (False)."""

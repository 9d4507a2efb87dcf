"""What the daemon cannot do just now, for want of something that passes: disk, descriptors, memory.

In the master. Whoever meets such a trouble tells it here and tries again by a timer; ``status``
shows it for as long as it is told again. The log has a line when it begins and one when it is over.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from taskd import log
from taskd.errors import Error, StoreError
from taskd.record import Record

PASSING = (OSError, StoreError, ImportError, MemoryError)
"""Errors that are no fault of the code that meets them; waiting helps, or somebody who makes room.
(An import fails, too, when no descriptor is left.)"""

UNWRITABLE = "nothing new is accepted or started"
NO_WORKER = "no worker can be started"
"""What a trouble is called while the store cannot commit, and while workers do not come up."""

LASTS = 5.0
"""Seconds that a trouble is shown after it was told; retries are closer together than this."""


class _Trouble(Record):
    why: str
    until: float  # on the monotonic clock


class Troubles:
    """By what cannot be done, in words; ``after`` is the loop's."""

    def __init__(self, after: Callable[[float, Callable[[], None]], object]) -> None:
        self._after = after
        self.on_change: Callable[[], None] = lambda: None
        self._all: dict[str, _Trouble] = {}

    def tell(self, what: str, error: BaseException | str, lasts: float = LASTS) -> None:
        """``what`` does not go on because of ``error``; it is told again in less than ``lasts``
        seconds, or over."""
        why = error if isinstance(error, str) else in_words(error)
        known = self._all.get(what)
        self._all[what] = _Trouble(why, time.monotonic() + lasts)
        if known is None:
            self._after(lasts, lambda: self._look(what))
        if known is None or known.why != why:
            log.error(what, why=why)
            self.on_change()

    def over(self, what: str) -> None:
        """It went on."""
        if self._all.pop(what, None) is not None:
            log.info(f"over: {what}")
            self.on_change()

    def why(self, what: str) -> str | None:
        """Why it does not go on, or None."""
        found = self._all.get(what)
        return None if found is None else found.why

    def sentences(self) -> list[str]:
        """All of them, the oldest first."""
        return [f"{what}: {trouble.why}" for what, trouble in self._all.items()]

    def _look(self, what: str) -> None:
        trouble = self._all.get(what)
        if trouble is None:
            return
        left = trouble.until - time.monotonic()
        if left > 0:
            self._after(left, lambda: self._look(what))
        else:
            self.over(what)


def in_words(error: BaseException) -> str:
    """Why, and with which file, in one line."""
    if isinstance(error, Error) or not str(error):
        return str(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return f"{type(error).__name__}: {error}"

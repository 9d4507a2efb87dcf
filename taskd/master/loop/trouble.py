"""Troubles: what the daemon cannot do just now because of a transient error (disk, descriptors,
memory).

The part of the master that meets one reports it here and tries again by a timer; ``status`` shows
the trouble as long as it is reported again. The log has a line when it begins and one when it ends.
Warnings that clients and tasks can cause as often as they like are held back here, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from taskd import log
from taskd.errors import Error, StoreError
from taskd.record import Record

LOG_PAUSE = 1.0
"""Seconds between two log lines of one warning."""

PASSING = (OSError, StoreError, ImportError, MemoryError)
"""Transient errors: ENOSPC, EMFILE, ENOMEM and the like. Waiting helps, or the operator makes room.
(An import, too, fails while no descriptor is left.)"""

UNWRITABLE = "nothing new is accepted or started"
NO_WORKER = "no worker can be started"
"""The troubles' names while the store cannot commit, and while workers do not come up."""

LASTS = 5.0
"""Seconds that a trouble is shown after it was reported; retries are closer together than this."""


class _Trouble(Record):
    why: str
    until: float  # on the monotonic clock


class Troubles:
    """The current troubles, by name. ``after``: starts a timer of the loop."""

    def __init__(self, after: Callable[[float, Callable[[], None]], object]) -> None:
        self._after = after
        self.on_change: Callable[[], None] = lambda: None
        self._all: dict[str, _Trouble] = {}

    def tell(self, what: str, error: BaseException | str, lasts: float = LASTS) -> None:
        """Report the trouble ``what``, whose cause is ``error``. It is over unless it is reported
        again within ``lasts`` seconds."""
        why = error if isinstance(error, str) else in_words(error)
        known = self._all.get(what)
        self._all[what] = _Trouble(why, time.monotonic() + lasts)
        if known is None:
            self._after(lasts, lambda: self._look(what))
        if known is None or known.why != why:
            log.error(what, why=why)
            self.on_change()

    def over(self, what: str) -> None:
        """The trouble is over, if there was one."""
        if self._all.pop(what, None) is not None:
            log.info(f"over: {what}")
            self.on_change()

    def why(self, what: str) -> str | None:
        """The cause of the trouble, or None if there is none of that name."""
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
    """The error in one line, with the file's name."""
    if isinstance(error, Error) or not str(error):
        return str(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return f"{type(error).__name__}: {error}"


class Seldom:
    """A warning that is logged at most once in LOG_PAUSE, with the number of lines left out."""

    __slots__ = ("_last", "_left_out", "_text")

    def __init__(self, text: str) -> None:
        self._text = text
        self._last = float("-inf")
        self._left_out = 0

    def warn(self, **fields: object) -> None:
        now = time.monotonic()
        if now - self._last < LOG_PAUSE:
            self._left_out += 1
            return
        more = {"unlogged": self._left_out} if self._left_out else {}
        self._last, self._left_out = now, 0
        log.warning(self._text, **fields, **more)

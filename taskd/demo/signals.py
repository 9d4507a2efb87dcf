"""Ctrl-C, SIGTERM and a closed terminal: noted when they come, acted on where it is safe.

A handler that raised could do so inside of any library: in ``subprocess`` with its lock held, for
one, after which the daemon could never be waited for. So the handler only takes a note.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(Exception):
    """The demo was told to end. ``number``: the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.number = number


class Note:
    """Whether such a signal came."""

    def __init__(self) -> None:
        self._number: int | None = None

    def take(self, number: int, _: object) -> None:
        """The handler. The first signal counts."""
        if self._number is None:
            self._number = number

    def check(self) -> None:
        """Raises Stopped if one came."""
        if self._number is not None:
            raise Stopped(self._number)


@contextmanager
def noted() -> Iterator[Note]:
    """While the block runs; a signal that is ignored, as under nohup, stays so."""
    note = Note()
    before = {number: signal.getsignal(number) for number in ENDINGS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, note.take)
    try:
        yield note
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

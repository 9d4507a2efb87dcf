"""Tells of ends that a taskd without order (0.2) has written: once, when a master begins to serve.

Such a taskd leaves tasks that wait for others as they are, and ends those others without a word.
"""

from __future__ import annotations

from collections.abc import Callable

from taskd.errors import StoreError
from taskd.master.loop import Loop, Storage
from taskd.store.api import Applied, Recheck

AT_ONCE = 200
"""Tasks looked at in one transaction."""


class Rechecking:
    """``then``: called at the end, if anything is awaited."""

    def __init__(self, loop: Loop, storage: Storage, then: Callable[[], None]) -> None:
        self._loop = loop
        self._storage = storage
        self._then = then

    def begin(self, after: int = 0) -> None:
        def done(outcome: Applied | StoreError) -> None:
            if isinstance(outcome, StoreError):
                self._loop.again(lambda: self.begin(after))
            elif outcome.result is None:
                self._then()
            else:
                self.begin(outcome.result)

        self._storage.write(Recheck(after, AT_ONCE), done)

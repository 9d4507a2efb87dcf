"""A copy of what the store answers to one query, which is asked anew after each change.

Of several questions under way only the last counts: it knows more than those before it. An error is
a trouble until it is answered after all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from taskd.errors import StoreError
from taskd.master.loop.loop import Loop
from taskd.master.loop.storage import Storage
from taskd.store.queries import Query

A = TypeVar("A")


class Copied(Generic[A]):
    """``unknown``: the trouble's name. ``take``: called with each answer that counts."""

    def __init__(
        self,
        loop: Loop,
        storage: Storage,
        query: Query[A],
        unknown: str,
        take: Callable[[A], None],
    ) -> None:
        self._loop = loop
        self._storage = storage
        self._query = query
        self._unknown = unknown
        self._take = take
        self._looks = 0

    def look(self) -> None:
        """Ask anew."""
        self._looks += 1
        look = self._looks

        def answered(found: A | StoreError) -> None:
            if look != self._looks:
                return
            if isinstance(found, StoreError):
                self._loop.troubles.tell(self._unknown, found)
                self._loop.again(self.look)
                return
            self._loop.troubles.over(self._unknown)
            self._take(found)

        self._storage.ask(self._query, answered)

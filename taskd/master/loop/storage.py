"""The store as the loop uses it: the store's thread writes; queries are asked, and answered later.

``applied``: called with each operation that has taken effect, after the operation's own callback.
``damage``: why nothing new may be accepted or started. Attempts that run go on; their ends are
recorded if that is possible, and otherwise stay in their slots.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from taskd.errors import StoreDamaged, StoreError
from taskd.master.loop.life import Life
from taskd.master.loop.loop import READ, Loop
from taskd.master.loop.notice import Notice
from taskd.master.loop.statedir import StateDirectory
from taskd.master.loop.trouble import UNWRITABLE
from taskd.store import health
from taskd.store.api import (
    Applied,
    Operation,
)
from taskd.store.queries import A, NextDue, Part, Query
from taskd.store.reader import SqliteReader
from taskd.store.sqlite import SqliteStore
from taskd.store.writer import Writer, launch

CLOSE_WITHIN = 10.0
"""Seconds that the store has to close at the daemon's end."""


Done = Callable[[Applied | StoreError], None]


class Storage:
    """Owns the writer's thread, the loop's reader and the check of the whole file."""

    reader: SqliteReader

    def __init__(self, loop: Loop, life: Life, statedir: StateDirectory, path: str) -> None:
        self._loop = loop
        self._life = life
        self._statedir = statedir
        self._path = path
        self._committed = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        open_store = lambda: SqliteStore(path, at_work=lambda: self.writer.at_work())  # noqa: E731
        self.writer = Writer(open_store, self._committed)
        self.applied: Notice[[Applied]] = Notice()
        self._check: health.Check | None = None
        self._damage: StoreError | None = None
        loop.watch(self._committed, READ, lambda _: self._look())

    def open(self) -> None:
        """Start the writer's thread and open the store. Raises StoreError."""
        self.writer.start()
        self.reader = SqliteReader(self._path)
        self._statedir.opened()

    def try_to_open(self) -> bool:
        """For a trial, which writes nothing: open the store and read it. False: it is as a version
        before this one has left it, and answers once the new image has added to it. Raises
        StoreError."""
        self.reader = SqliteReader(self._path)
        if not self.reader.is_grown():
            return False
        self.reader.ask(NextDue(), _raise_error)
        return True

    def check(self) -> None:
        """Check the whole file in another thread; ``damage`` is what that finds."""
        self._check = health.Check(self._path, self._committed)
        launch(self._check.run, "store-check")

    def ask(self, query: Query[A], done: Callable[[A | StoreError], None]) -> None:
        """Ask the store; ``done`` is called once with the answer, or with the error if the store
        cannot be read: within this call, or later in the loop."""
        self.reader.ask(query, done)

    def gather(self, query: Query[Part[A]], done: Callable[[list[A] | StoreError], None]) -> None:
        """Ask for all parts of an answer, each in a turn of the loop of its own, and call ``done``
        once with what all of them have found."""
        found: list[A] = []

        def ask(query: Query[Part[A]], known: int) -> None:
            def answered(part: Part[A] | StoreError) -> None:
                if isinstance(part, StoreError):
                    done(part)
                    return
                del found[known:]  # of the same part, if the loop had to call this again
                found.extend(part.found)
                if (rest := part.next) is None:
                    done(found)
                else:
                    self._loop.soon(lambda: ask(rest, len(found)))

            self.ask(query, answered)

        ask(query, 0)

    def write(self, operation: Operation, done: Done) -> None:
        """Apply ``operation``; ``done`` is called in the loop once it is on disk, or has failed."""
        self.write_together([(operation, done)])

    def write_together(self, works: Sequence[tuple[Operation, Done]]) -> None:
        """As ``write``, for several in one transaction."""
        assert not self._life.is_adopting, "nothing is written before it is decided who serves"
        self.writer.submit_together([(each, self._applied(done)) for each, done in works])

    def _applied(self, done: Done) -> Done:

        def applied(outcome: Applied | StoreError) -> None:
            if isinstance(outcome, StoreDamaged):
                self._damage = outcome
            if isinstance(outcome, StoreError):
                self._loop.troubles.tell(UNWRITABLE, outcome)
            elif self.damage is None:
                self._loop.troubles.over(UNWRITABLE)
            done(outcome)
            if isinstance(outcome, Applied):
                self.applied(outcome)

        return applied

    def _look(self) -> None:
        """The writer's thread has done something, or does not know what it has done."""
        self.writer.completions()
        if (doubt := self.writer.doubt) is not None:
            self._loop.troubles.tell(UNWRITABLE, f"is it committed? {doubt}")

    @property
    def damage(self) -> StoreError | None:
        """Why the store cannot be used: its file is damaged, or was removed or replaced."""
        found = None if self._check is None else self._check.damage
        return self._damage or found or self.reader.damage or self._statedir.lost

    def close(self) -> None:
        self.reader.close()
        self.writer.stop(CLOSE_WITHIN)


def _raise_error(answer: object) -> None:
    if isinstance(answer, StoreError):
        raise answer

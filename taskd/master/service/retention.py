"""Removes tasks that have been over for as long as [retention] says, with their files.

Level-triggered: each round begins from what the store says, so that nothing need cross an exec or
a crash. In one round (1) the logs and scratch directories of tasks that are purged already are
removed, then, in one commit, (2) the store forgets the rest of those and (3) purges the next. A
task's row goes first: a file that is left is found again by the store's list of what is left, a row
without its log would be a lie.

Nobody is to notice: a round takes few tasks, files go for a few milliseconds at a time, and between
two rounds there is a pause of several times the time that the commit took. Nothing is removed while
a deploy is under way. Once nothing is to be removed, the store gives back what it does not use.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from taskd import log
from taskd.config import Config
from taskd.errors import StoreError
from taskd.master.deploy import Progress, age_text, ages
from taskd.master.loop import Life, LifeState, Loop, Storage
from taskd.master.service.checks import Check
from taskd.master.service.shrinking import Shrinking
from taskd.model.upgrade import Phase
from taskd.paths import Places
from taskd.posix import removing
from taskd.store.api import (
    Applied,
    Forget,
    Operation,
    Prepare,
    Purge,
)
from taskd.store.queries import Expired, Purged

EVERY = 60.0
"""Seconds between two looks while nothing is to be removed."""

FIRST = 5.0
"""Seconds until the first look: a daemon that begins to serve has other things to do."""

SLICE = 100
"""Tasks of one round."""

ROOM = 4 << 20
"""Bytes of arguments, saved states and results that one round purges."""

ROWS = 1000
"""Events and submission ids that one round removes."""

TURN = 0.002
"""Seconds for which files are removed in one turn of the loop."""

PAUSE = 4
"""So many times as long as its commit took, but LEAST seconds, is the pause after a round."""

LEAST = 0.02

GRACE = 7 * 86400.0
"""Seconds for which nothing is removed from a store that was made by a version without this."""

SHOWN = 5
"""Queues with ages of their own that a check names."""

_CANNOT = "old tasks are not removed"


class Retention:
    """``begin``: look, soon and from now on. ``removed``: tasks since then; ``waits``: for how many
    seconds more nothing is removed, as the store has said; None: it has not been asked yet."""

    def __init__(
        self,
        loop: Loop,
        life: Life,
        config: Config,
        places: Places,
        storage: Storage,
        progress: Progress,
        is_awaited: Callable[[int], bool],
    ) -> None:
        """``is_awaited``: whether a client is still to be told of the end of a task."""
        self._loop = loop
        self._life = life
        self._places = places
        self._storage = storage
        self._progress = progress
        self._is_awaited = is_awaited
        self._ages = ages(config)
        self._every = min(EVERY, max(1.0, self._ages.shortest))
        self._from: float | None = None  # on the monotonic clock
        self._told = 0
        self.removed = 0
        self._shrinking = Shrinking(storage)

    def begin(self) -> None:
        self._loop.after(min(FIRST, self._every), self._look)

    def checks(self) -> list[Check]:
        """For `taskctl doctor`."""
        kept = [(state.value, age_text(age)) for state, age in self._ages.usual.items()]
        others = sorted(
            queue for queue, ages in self._ages.queues.items() if ages != self._ages.usual
        )
        text = "tasks that are over are kept for " + ", ".join(
            f"{age} ({state})" for state, age in kept
        )
        if others:
            text += f", and for other times in {', '.join(others[:SHOWN])}" + "…" * (
                len(others) > SHOWN
            )
        if self.waits:
            first = time.strftime("%Y-%m-%d %H:%M", time.localtime(time.time() + self.waits))
            text += (
                f". Nothing is removed before {first}: the store comes from a version that kept all"
            )
        elif self.removed:
            text += f". {self.removed:,} were removed since the daemon began to serve"
        return [{"name": "retention", "ok": True, "text": text}, *self._shrinking.checks()]

    @property
    def waits(self) -> float | None:
        return None if self._from is None else max(0.0, self._from - time.monotonic())

    @property
    def _may(self) -> bool:
        is_idle = self._progress.phase is Phase.IDLE
        is_whole = self._storage.damage is None
        return is_idle and is_whole and self._life.state is LifeState.SERVING

    def _later(self, why: StoreError | OSError | None = None) -> None:
        if why is not None:
            self._loop.troubles.tell(_CANNOT, why)
        if self.removed > self._told:
            log.info("removed old tasks", count=self.removed - self._told)
            self._told = self.removed
        self._loop.after(self._every, self._look)

    def _look(self) -> None:
        if not self._may:
            self._later()
        elif self._from is None:
            self._storage.write(Prepare(GRACE), self._prepared)
        else:
            self._storage.gather(Purged(SLICE), self._found_left)

    def _prepared(self, outcome: Applied | StoreError) -> None:
        if isinstance(outcome, StoreError):
            self._later(outcome)
            return
        self._from = time.monotonic() + outcome.result
        self._loop.soon(self._look)

    def _found_left(self, left: list[int] | StoreError) -> None:
        if isinstance(left, StoreError):
            self._later(left)
        else:
            self._remove(left, self._files(left))

    def _files(self, tasks: Sequence[int]) -> Iterator[None]:
        """Remove their logs and scratch directories, a little in each step. What cannot be removed
        is told, and left: it must not keep all others from being removed."""
        for task in tasks:
            for path in (self._places.task_log(task), self._places.task_scratch(task)):
                try:
                    yield from removing.steps(path)
                except OSError as error:
                    log.warning("cannot remove what an old task has left", path=path, why=error)
                yield

    def _remove(self, tasks: list[int], files: Iterator[None]) -> None:
        """Go on removing; then look for what the store may purge."""
        if not self._may:
            self._later()
            return
        until = time.monotonic() + TURN
        for _ in files:
            if time.monotonic() >= until:
                self._loop.after(TURN, lambda: self._remove(tasks, files))
                return
        if self.waits:
            self._write(tasks, [])
        else:
            expired = Expired(self._ages, SLICE)
            self._storage.gather(expired, lambda found: self._found_expired(tasks, found))

    def _found_expired(self, left: list[int], found: list[int] | StoreError) -> None:
        if isinstance(found, StoreError):
            self._later(found)
        else:
            self._write(left, [task for task in found if not self._is_awaited(task)])

    def _write(self, left: list[int], expired: list[int]) -> None:
        works: list[Operation] = []
        if left:
            works.append(Forget(tuple(left), ROWS))
        if expired:
            works.append(Purge(tuple(expired), self._ages, ROOM))
        if not self._may:
            self._later()
            return
        if not works:
            self._shrinking.step(self._shrunk)
            return
        begun, left_over = time.monotonic(), len(works)
        has_changed = False

        def done(operation: Operation) -> Callable[[Applied | StoreError], None]:
            def applied(outcome: Applied | StoreError) -> None:
                nonlocal left_over, has_changed
                left_over -= 1
                if isinstance(outcome, Applied):
                    has_changed |= bool(outcome.result) or isinstance(operation, Forget)
                    self.removed += len(outcome.result) * isinstance(operation, Purge)
                if left_over == 0:
                    why = outcome if isinstance(outcome, StoreError) else None
                    self._over(time.monotonic() - begun, has_changed, why)

            return applied

        self._storage.write_together([(each, done(each)) for each in works])

    def _shrunk(self, took: float | None) -> None:
        """``took``: seconds that a step took; None: there is nothing to give back."""
        if took is None:
            self._later()
        else:
            self._loop.after(max(LEAST, PAUSE * took), self._look)

    def _over(self, took: float, has_changed: bool, why: StoreError | None) -> None:
        if why is not None or not has_changed:
            self._later(why)
        else:
            self._loop.after(max(LEAST, PAUSE * took), self._look)

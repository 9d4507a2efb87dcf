"""When a zygote that died is started again: at once, or ever later while it keeps dying.

One that lived for STEADY seconds is started again after FIRST; one that dies sooner, or cannot be
started at all, waits twice as long each time, LONGEST at most. Tasks that wait for it change
nothing about that; ``status`` says so meanwhile.
"""

from __future__ import annotations

import time

from taskd.config import Config
from taskd.errors import DeployRefused
from taskd.master.fleet.revision import Revision
from taskd.master.fleet.revisions import Revisions
from taskd.master.fleet.zygotes import Zygotes
from taskd.master.loop import LASTS, Life, Loop, Timer, in_words
from taskd.model.endings import death_in_words
from taskd.model.revision import LIVE

FIRST = 1.0
LONGEST = 60.0
"""Seconds between a zygote's death and the next start."""

STEADY = 30.0
"""Seconds that a zygote must live for its death to be one of its own, not one in a row."""


class _Record:
    """Of one revision: early deaths in a row, and the times on the monotonic clock."""

    __slots__ = ("deaths", "not_before", "started", "timer")

    def __init__(self) -> None:
        self.deaths = 0
        self.started = 0.0
        self.not_before = 0.0
        self.timer: Timer | None = None


class Respawn:
    """Owns the records, by the revision's number."""

    def __init__(
        self, loop: Loop, life: Life, config: Config, revisions: Revisions, zygotes: Zygotes
    ) -> None:
        self._loop = loop
        self._life = life
        self._config = config
        self._revisions = revisions
        self._zygotes = zygotes
        self._records: dict[int, _Record] = {}

    def on_death(self, revision: Revision, status: int | None) -> None:
        """The zygote of ``revision`` has died."""
        if revision.state not in LIVE:
            return
        record = self._record(revision)
        if time.monotonic() - record.started > STEADY:
            record.deaths = 0
        self._put_off(revision, record, death_in_words(status))
        if revision is self._revisions.current:
            self.need(revision)

    def need(self, revision: Revision) -> None:
        """It should have a zygote: start one, now or when its time has come."""
        record = self._record(revision)
        if revision.zygote.pid is not None or record.timer is not None:
            return
        wait = record.not_before - time.monotonic()
        if wait > 0:
            record.timer = self._loop.after(wait, lambda: self._start(revision, record))
        else:
            self._start(revision, record)

    def forget(self, revision: Revision) -> None:
        """It is gone."""
        record = self._records.pop(revision.number, None)
        if record is not None and record.timer is not None:
            record.timer.cancel()

    def _record(self, revision: Revision) -> _Record:
        return self._records.setdefault(revision.number, _Record())

    def _start(self, revision: Revision, record: _Record) -> None:
        record.timer = None
        is_there = revision.zygote.pid is not None
        if is_there or revision.state not in LIVE or self._life.is_stopping:
            return
        record.started = time.monotonic()
        try:
            self._zygotes.start(revision, self._config.daemon.prove_timeout)
        except (OSError, DeployRefused) as error:
            self._put_off(revision, record, in_words(error))
            self.need(revision)

    def _put_off(self, revision: Revision, record: _Record, why: str) -> None:
        record.deaths += 1
        wait = float(min(LONGEST, FIRST * 2.0 ** min(record.deaths - 1, 10)))
        record.not_before = time.monotonic() + wait
        if record.deaths > 1:
            what = f"the zygote of {revision.name} does not stay up"
            again = f"{why}; it is started again {wait:g} s after that"
            self._loop.troubles.tell(what, again, lasts=wait + LASTS)

"""Starts a zygote that died again, after a pause that doubles while it keeps dying.

A zygote that lived for STEADY seconds is started again after FIRST seconds. The pause doubles, to
LONGEST at most, each time it dies sooner or cannot be started. Tasks that wait for it do not
shorten the pause; ``status`` shows the trouble.
"""

from __future__ import annotations

import time
from collections import defaultdict

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
"""Seconds between a zygote's death and its next start, at first and at most."""

STEADY = 30.0
"""Seconds; the death of a zygote that lived longer does not count as one in a row."""


class _Past:
    """Of one revision's zygotes: ``deaths``: early ones in a row. ``started``: when the last one
    was, and ``not_before``: when the next one may be (monotonic clock). ``timer``: of that start,
    if it is wanted."""

    deaths = 0
    started = 0.0
    not_before = 0.0
    timer: Timer | None = None


class Respawn:
    """Owns the pasts, by the revision's number."""

    def __init__(
        self, loop: Loop, life: Life, config: Config, revisions: Revisions, zygotes: Zygotes
    ) -> None:
        self._loop = loop
        self._life = life
        self._config = config
        self._revisions = revisions
        self._zygotes = zygotes
        self._pasts: defaultdict[int, _Past] = defaultdict(_Past)

    def on_death(self, revision: Revision, status: int | None) -> None:
        """The zygote of ``revision`` has died."""
        if revision.state not in LIVE:
            return
        past = self._pasts[revision.number]
        if time.monotonic() - past.started > STEADY:
            past.deaths = 0
        self._put_off(revision, past, death_in_words(status))
        if revision is self._revisions.current:
            self.need(revision)

    def need(self, revision: Revision) -> None:
        """The revision should have a zygote: start one, now or after the pause."""
        past = self._pasts[revision.number]
        if revision.zygote.pid is not None or past.timer is not None:
            return
        wait = past.not_before - time.monotonic()
        if wait > 0:
            past.timer = self._loop.after(wait, lambda: self._start(revision, past))
        else:
            self._start(revision, past)

    def forget(self, revision: Revision) -> None:
        """The revision is gone."""
        past = self._pasts.pop(revision.number, None)
        if past is not None and past.timer is not None:
            past.timer.cancel()

    def _start(self, revision: Revision, past: _Past) -> None:
        past.timer = None
        is_there = revision.zygote.pid is not None
        if is_there or revision.state not in LIVE or self._life.is_stopping:
            return
        past.started = time.monotonic()
        try:
            self._zygotes.start(revision, self._config.daemon.prove_timeout)
        except (OSError, DeployRefused) as error:
            self._put_off(revision, past, in_words(error))
            self.need(revision)

    def _put_off(self, revision: Revision, past: _Past, why: str) -> None:
        past.deaths += 1
        wait = float(min(LONGEST, FIRST * 2.0 ** min(past.deaths - 1, 10)))
        past.not_before = time.monotonic() + wait
        if past.deaths > 1:
            what = f"the zygote of {revision.name} does not stay up"
            again = f"{why}; it is started again {wait:g} s after that"
            self._loop.troubles.tell(what, again, lasts=wait + LASTS)

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


class _History:
    """The starts and deaths of one revision's zygotes. ``deaths``: how many died early in a row.
    ``started``: when the last one was started; ``not_before``: when the next one may be (monotonic
    clock). ``timer``: of that next start, if there is one."""

    deaths = 0
    started = 0.0
    not_before = 0.0
    timer: Timer | None = None


class Respawn:
    """Owns the histories, by the revision's number."""

    def __init__(
        self, loop: Loop, life: Life, config: Config, revisions: Revisions, zygotes: Zygotes
    ) -> None:
        self._loop = loop
        self._life = life
        self._config = config
        self._revisions = revisions
        self._zygotes = zygotes
        self._histories: defaultdict[int, _History] = defaultdict(_History)

    def on_death(self, revision: Revision, status: int | None) -> None:
        """The zygote of ``revision`` has died."""
        if revision.state not in LIVE:
            return
        history = self._histories[revision.number]
        if time.monotonic() - history.started > STEADY:
            history.deaths = 0
        self._put_off(revision, history, death_in_words(status))
        if revision is self._revisions.current:
            self.need(revision)

    def need(self, revision: Revision) -> None:
        """The revision should have a zygote: start one, now or after the pause."""
        history = self._histories[revision.number]
        if revision.zygote.pid is not None or history.timer is not None:
            return
        wait = history.not_before - time.monotonic()
        if wait > 0:
            history.timer = self._loop.after(wait, lambda: self._start(revision, history))
        else:
            self._start(revision, history)

    def forget(self, revision: Revision) -> None:
        """The revision is gone."""
        history = self._histories.pop(revision.number, None)
        if history is not None and history.timer is not None:
            history.timer.cancel()

    def _start(self, revision: Revision, history: _History) -> None:
        history.timer = None
        is_there = revision.zygote.pid is not None
        if is_there or revision.state not in LIVE or self._life.is_stopping:
            return
        history.started = time.monotonic()
        try:
            self._zygotes.start(revision, self._config.daemon.prove_timeout)
        except (OSError, DeployRefused) as error:
            self._put_off(revision, history, in_words(error))
            self.need(revision)

    def _put_off(self, revision: Revision, history: _History, why: str) -> None:
        history.deaths += 1
        wait = float(min(LONGEST, FIRST * 2.0 ** min(history.deaths - 1, 10)))
        history.not_before = time.monotonic() + wait
        if history.deaths > 1:
            what = f"the zygote of {revision.name} does not stay up"
            again = f"{why}; it is started again {wait:g} s after that"
            self._loop.troubles.tell(what, again, lasts=wait + LASTS)

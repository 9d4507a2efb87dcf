"""What systemd is told of the daemon: READY, STATUS, WATCHDOG, and more time where it is needed.

Without a service manager nothing here wakes up. What ps and pgrep show of the daemon is said here,
too: its name at once, the title, which takes an import, a little later, when no client waits for
the daemon any more.

* READY once it serves, again and again until it can be told.
* STATUS when it has changed, once a second at most; that a deploy was refused at once, since
  `systemctl status` is where one looks for the reason when `systemctl reload` has failed.
* WATCHDOG only while the loop turns and the store's writer gets on: a timer of the loop sends it,
  and not unless the writer has nothing to do or has carried out something since the last time. A
  writer that hangs for all of WatchdogSec= ends the daemon; its tasks go on, and the next daemon
  begins with a store of its own.
* EXTEND_TIMEOUT_USEC again and again while the daemon starts or stops: both have limits of their
  own (``[daemon] prove_timeout`` and ``stop_timeout``), and an operator who raises those need not
  know of systemd's.
"""

from __future__ import annotations

import faulthandler
import time
from collections import Counter
from collections.abc import Callable

from taskd.master.attempts import Attempts
from taskd.master.fleet import Revisions
from taskd.master.loop import Life, Loop
from taskd.posix import pidfile, title
from taskd.store.writer import Writer
from taskd.systemd import notify

SELDOM = 1.0
"""Seconds between two STATUS."""

EXTEND_EVERY = 5.0
EXTENSION = 20.0
"""Seconds: how often more time is asked for, and how much from then on."""

PINGS = 3
"""Looks within the watchdog's time: all but one may find the writer busy with the same."""


class SystemdStatus:
    """Begun by ``begin``; ``changed`` may be called at any time. ``stop_in_words``: how far a stop
    is."""

    stop_in_words: Callable[[], str]

    def __init__(
        self, loop: Loop, life: Life, writer: Writer, revisions: Revisions, attempts: Attempts
    ) -> None:
        self._loop = loop
        self._life = life
        self._writer = writer
        self._revisions = revisions
        self._attempts = attempts
        self._is_heard = notify.is_heard()
        self._watchdog = notify.watchdog()
        self._begun = False
        self._asked = False
        self._said = ""
        self._said_at = -SELDOM
        self._finished = -1

    def begin(self) -> None:
        """From now on; a second call does nothing."""
        if self._begun or not self._is_heard:
            return
        self._begun = True
        if self._watchdog is not None:
            faulthandler.enable()  # SIGABRT is how the watchdog ends the daemon: say where it was
            self._ping(self._watchdog)
        self._extend()

    def ready(self) -> None:
        """The daemon serves, whether systemd listens just now or not: one that hangs must not make
        the daemon hang."""

        def show_title() -> None:
            current = self._revisions.current
            title.show(title.MASTER, current.name if current is not None else "")

        title.name(title.MASTER)
        self._loop.after(SELDOM, show_title)
        self._tell_ready()

    def _tell_ready(self) -> None:
        if not self._is_heard or self._life.is_stopping:
            return
        if not notify.tell("READY=1", f"STATUS={self.line()}"):
            self._loop.after(SELDOM, self._tell_ready)
        elif pidfile.wanted() is not None:
            # The process that started the daemon in the background waits for this alone.
            self._is_heard = False
            notify.forget()

    # ── STATUS ───────────────────────────────────────────────────────────────────────────────

    def line(self) -> str:
        if self._life.is_stopping:
            return self.stop_in_words()
        current = self._revisions.current
        name = current.name if current else "starting"
        running = self._attempts.all()
        workers = [self._attempts.worker_of(each.task) for each in running]
        others = Counter(w.revision.name for w in workers if w and w.revision is not current)
        older = "".join(f", {count} on {other}" for other, count in sorted(others.items()))
        parts = [name, f"{len(running)} running{older}", self._life.note]
        return "; ".join(filter(None, [*parts, *self._loop.troubles.sentences()]))

    def changed(self) -> None:
        """Something that ``line`` tells may be another now."""
        if self._asked or not self._is_heard:
            return
        self._asked = True

        def say() -> None:
            self._asked = False
            self.say()

        self._loop.after(max(0.0, self._said_at + SELDOM - time.monotonic()), say)

    def say(self) -> None:
        """What it is now, now."""
        self._said_at = time.monotonic()
        line = self.line()
        if line == self._said:
            return
        if notify.tell(f"STATUS={line}"):
            self._said = line
        else:
            self.changed()  # it is too busy to listen: in a second

    # ── WATCHDOG and time ────────────────────────────────────────────────────────────────────

    def _ping(self, watchdog: float) -> None:
        self._loop.after(watchdog / PINGS, lambda: self._ping(watchdog))
        if self._writer.is_idle or self._writer.finished != self._finished:
            notify.tell("WATCHDOG=1")
        self._finished = self._writer.finished

    def _extend(self) -> None:
        if self._life.is_up:
            return  # the stop begins it anew
        notify.tell(f"EXTEND_TIMEOUT_USEC={EXTENSION * 1e6:.0f}")
        self._loop.after(EXTEND_EVERY, self._extend)

    def stopping(self) -> None:
        """The stop has begun."""
        if self._is_heard:
            notify.tell("STOPPING=1")
            self._extend()
            self.changed()

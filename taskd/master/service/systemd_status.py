"""Reports the daemon's state to systemd (sd_notify): READY, STATUS, WATCHDOG, EXTEND_TIMEOUT_USEC.

Without a service manager no timer is set here. The process name and title, which ps and pgrep show,
are set here, too: the name at once; the title, which takes an import, a second later, when clients
no longer wait for the daemon.

* READY once the daemon serves; repeated until systemd's socket takes it.
* STATUS when it has changed, once a second at most; but at once when a deploy was refused, since
  an operator whose `systemctl reload` has failed looks for the reason in `systemctl status`.
* WATCHDOG while the loop turns and the store's writer makes progress: a timer of the loop sends it
  if the writer is idle or has finished an operation since the last time. If the writer hangs for
  all of WatchdogSec=, systemd ends the daemon; its tasks go on, and the next daemon opens the store
  with a new writer.
* EXTEND_TIMEOUT_USEC every 5 s while the daemon starts or stops: both have limits of their own
  (``[daemon] prove_timeout`` and ``stop_timeout``), and an operator who raises those need not raise
  systemd's limits.
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
"""Seconds between two STATUS messages."""

EXTEND_EVERY = 5.0
EXTENSION = 20.0
"""Seconds: how often more time is asked for, and how much from then on."""

PINGS = 3
"""Looks at the writer within WatchdogSec=; one of them must find progress."""


class SystemdStatus:
    """``changed`` may be called at any time, also before ``begin``. ``stop_in_words``: how far a
    stop has come."""

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
        """Start the timers; a second call does nothing."""
        if self._begun or not self._is_heard:
            return
        self._begun = True
        if self._watchdog is not None:
            faulthandler.enable()  # SIGABRT is how the watchdog ends the daemon: say where it was
            self._ping(self._watchdog)
        self._extend()

    def ready(self) -> None:
        """The daemon serves: report it, and set the process's name and title. Does not wait for
        systemd: if systemd hangs, the daemon must not."""

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
            # The launcher of a daemon in the background waits for READY alone.
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
        """A part of ``line`` may have changed: send STATUS soon."""
        if self._asked or not self._is_heard:
            return
        self._asked = True

        def say() -> None:
            self._asked = False
            self.say()

        self._loop.after(max(0.0, self._said_at + SELDOM - time.monotonic()), say)

    def say(self) -> None:
        """Send STATUS now, if it has changed."""
        self._said_at = time.monotonic()
        line = self.line()
        if line == self._said:
            return
        if notify.tell(f"STATUS={line}"):
            self._said = line
        else:
            self.changed()  # systemd's socket is full: again in a second

    # ── WATCHDOG and time ────────────────────────────────────────────────────────────────────

    def _ping(self, watchdog: float) -> None:
        self._loop.after(watchdog / PINGS, lambda: self._ping(watchdog))
        if self._writer.is_idle or self._writer.finished != self._finished:
            notify.tell("WATCHDOG=1")
        self._finished = self._writer.finished

    def _extend(self) -> None:
        if self._life.is_up:
            return  # the stop will call this again
        notify.tell(f"EXTEND_TIMEOUT_USEC={EXTENSION * 1e6:.0f}")
        self._loop.after(EXTEND_EVERY, self._extend)

    def stopping(self) -> None:
        """The stop has begun."""
        if self._is_heard:
            notify.tell("STOPPING=1")
            self._extend()
            self.changed()

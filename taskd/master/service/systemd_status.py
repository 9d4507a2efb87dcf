"""How the daemon stands, as systemd is told it: READY, STATUS, WATCHDOG, and more time where that
is needed.

In the master. Without a service manager nothing here wakes up. What ps and pgrep show of the
daemon is its standing too: its name at once, the title, which takes an import, a little later, when
nobody waits for us any more.

* READY once we serve, again and again until it can be told.
* STATUS when it has changed, once a second at most; that a deploy was refused at once, since
  `systemctl status` is where one looks for the reason when `systemctl reload` has failed.
* WATCHDOG only while the loop turns and the store's writer gets on: a timer of the loop sends it,
  and not unless the writer has nothing to do or has carried out something since the last time. A
  writer that hangs for all of WatchdogSec= ends the daemon; its tasks go on, and the next daemon
  begins with a store of its own.
* EXTEND_TIMEOUT_USEC again and again while the daemon starts or stops: both have limits of their
  own (``[daemon] prove_timeout`` and ``stop_timeout``), and whoever raises those need not know of
  systemd's.
"""

from __future__ import annotations

import faulthandler
import time
from typing import TYPE_CHECKING

from taskd.posix import pidfile, title
from taskd.systemd import notify

if TYPE_CHECKING:
    from taskd.master.master import Master

SELDOM = 1.0
"""Seconds between two STATUS."""

EXTEND_EVERY = 5.0
EXTENSION = 20.0
"""Seconds: how often more time is asked for, and how much from then on."""

PINGS = 3
"""Looks within the watchdog's time: all but one may find the writer busy with the same."""


class Standing:
    """Begun by ``begin``; ``changed`` may be called at any time."""

    def __init__(self, master: Master) -> None:
        self._master = master
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
            faulthandler.enable()  # SIGABRT is how the watchdog ends us: say where we were
            self._ping()
        self._extend()

    def ready(self) -> None:
        """We serve, whether it listens just now or not: one that hangs must not make us hang."""
        title.name(title.MASTER)
        self._master.loop.after(SELDOM, self._show_title)
        self._tell_ready()

    def _show_title(self) -> None:
        current = self._master.revisions.current
        title.show(title.MASTER, current.name if current is not None else "")

    def _tell_ready(self) -> None:
        if not self._is_heard or self._master.stopping:
            return
        if not notify.tell("READY=1", f"STATUS={self._master.status_line()}"):
            self._master.loop.after(SELDOM, self._tell_ready)
        elif pidfile.wanted() is not None:  # who started us in the background waits for this alone
            self._is_heard = False
            notify.forget()

    # ── STATUS ───────────────────────────────────────────────────────────────────────────────

    def changed(self) -> None:
        """Something that ``status_line`` tells may be another now."""
        if self._asked or not self._is_heard:
            return
        self._asked = True
        wait = max(0.0, self._said_at + SELDOM - time.monotonic())
        self._master.loop.after(wait, self._say)

    def _say(self) -> None:
        self._asked = False
        self.say()

    def say(self) -> None:
        """What it is now, now."""
        self._said_at = time.monotonic()
        line = self._master.status_line()
        if line == self._said:
            return
        if notify.tell(f"STATUS={line}"):
            self._said = line
        else:
            self.changed()  # it is too busy to listen: in a second

    # ── WATCHDOG ─────────────────────────────────────────────────────────────────────────────

    def _ping(self) -> None:
        assert self._watchdog is not None
        self._master.loop.after(self._watchdog / PINGS, self._ping)
        writer = self._master.writer
        if writer.is_idle or writer.finished != self._finished:
            notify.tell("WATCHDOG=1")
        self._finished = writer.finished

    # ── time ─────────────────────────────────────────────────────────────────────────────────

    def _extend(self) -> None:
        if self._master.is_serving:
            return  # the stop begins it anew
        notify.tell(f"EXTEND_TIMEOUT_USEC={EXTENSION * 1e6:.0f}")
        self._master.loop.after(EXTEND_EVERY, self._extend)

    def stopping(self) -> None:
        """The stop has begun."""
        if self._is_heard:
            notify.tell("STOPPING=1")
            self._extend()
            self.changed()

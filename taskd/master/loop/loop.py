"""The master's one wait point: descriptors, timers and signals, in one thread.

Handlers run to their end, one after another; nothing else changes the master's state. Signals
only set a byte in the wakeup pipe; threads only write to an eventfd that the loop watches.

A transient error (``trouble.PASSING``: no descriptor, memory or disk space left) that a handler
raises is caught here. It is reported as a trouble, and the handler is called again after AGAIN
seconds; its descriptor is not watched until then. So a handler either begins with what can fail, or
leaves that to a ``Look``. Any other exception is a bug and ends the daemon: its next start goes on
from what is on disk.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import selectors
import signal
import time
from collections.abc import Callable

from taskd.master.loop.trouble import PASSING, Troubles

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE

Handler = Callable[[int], object]
"""Called with the ready events (READ, WRITE)."""

AGAIN = 0.5
"""Seconds after which a handler that met a transient error is called again."""

TRIED_AGAIN = "a step failed and is tried again"
"""The trouble's name where the handler has given no better one."""


class Timer:
    """A pending call of ``action``; ``cancel`` may be called at any time, and more than once."""

    __slots__ = ("action", "when")

    def __init__(self, when: float, action: Callable[[], None]) -> None:
        self.when = when
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        self.action = None


class Look:
    """A check that runs once, soon, however often it was asked for, and again while it meets a
    transient error."""

    __slots__ = ("_asked", "_look", "_loop", "_what")

    def __init__(self, loop: Loop, what: str, look: Callable[[], None]) -> None:
        """``what``: the trouble's name while the check fails."""
        self._loop = loop
        self._what = what
        self._look = look
        self._asked = False

    def ask(self) -> None:
        if not self._asked:
            self._asked = True
            self._loop.soon(self._run)

    def _run(self) -> None:
        self._asked = False
        try:
            self._look()
        except PASSING as error:
            self._asked = True  # the next try serves what is asked until then
            self._loop.troubles.tell(self._what, error)
            self._loop.after(AGAIN, self._run)
        else:
            self._loop.troubles.over(self._what)


class Loop:
    """Runs handlers until ``stop``. ``troubles``: what fails just now."""

    def __init__(self) -> None:
        self.troubles = Troubles(self.after)
        self._resting: dict[int, Timer] = {}  # descriptors whose handler failed, by number
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._stopping = False
        self._signals: dict[int, Callable[[], None]] = {}
        self._awake, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector.register(self._awake, READ, lambda _: self._on_signals())

    # ── descriptors ──────────────────────────────────────────────────────────────────────────

    def watch(self, fd: int, events: int, handler: Handler) -> None:
        """Call ``handler`` when ``fd`` is ready for ``events``; 0 stops watching it."""
        if (resting := self._resting.pop(fd, None)) is not None:
            resting.cancel()
        known = fd in self._selector.get_map()
        if events == 0:
            if known:
                self._selector.unregister(fd)
        elif known:
            self._selector.modify(fd, events, handler)
        else:
            self._selector.register(fd, events, handler)

    def _call(self, key: selectors.SelectorKey, events: int) -> None:
        try:
            key.data(events)
        except PASSING as error:
            self.troubles.tell(TRIED_AGAIN, error)
            watched = self._selector.get_map().get(key.fd)
            if watched is not None and watched.data == key.data:
                # Still ready: if it were watched, its handler would be called at once, for ever.
                fd, wanted = key.fd, watched.events
                self.watch(fd, 0, key.data)
                self._resting[fd] = self.after(AGAIN, lambda: self.watch(fd, wanted, key.data))

    # ── timers ───────────────────────────────────────────────────────────────────────────────

    def after(self, seconds: float, action: Callable[[], None]) -> Timer:
        """Call ``action`` once, ``seconds`` from now on the monotonic clock."""
        timer = Timer(time.monotonic() + seconds, action)
        self._push(timer)
        return timer

    def _push(self, timer: Timer) -> None:
        heapq.heappush(self._timers, (timer.when, next(self._order), timer))

    def _expire(self, timer: Timer) -> None:
        if timer.action is None:
            return
        try:
            timer.action()
        except PASSING as error:
            self.troubles.tell(TRIED_AGAIN, error)
            timer.when = time.monotonic() + AGAIN
            self._push(timer)

    def again(self, action: Callable[[], None]) -> None:
        """Call ``action`` once more after AGAIN seconds: it has met a transient error."""
        self.after(AGAIN, action)

    def soon(self, action: Callable[[], None]) -> None:
        """Call ``action`` once, after the handlers of this turn."""
        self.after(0, action)

    # ── signals ──────────────────────────────────────────────────────────────────────────────

    def on_signal(self, number: int, action: Callable[[], None]) -> None:
        """Call ``action`` in the loop when signal ``number`` has come (once for several)."""
        self._signals[number] = action
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        signal.signal(number, lambda *_: None)

    def caught_signals(self) -> set[int]:
        """Take the signals that were caught and not yet acted on out of the wakeup pipe.

        They are nowhere else: an exec would lose them. Signals without a handler are left out.
        """
        caught: set[int] = set()
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._awake, 4096):
                caught.update(data)
        return caught & self._signals.keys()

    def _on_signals(self) -> None:
        for number in self.caught_signals():
            if (action := self._signals.get(number)) is not None:
                self._expire(Timer(0, action))

    # ── running ──────────────────────────────────────────────────────────────────────────────

    def run(self) -> None:
        """Run handlers until one calls ``stop``."""
        self._stopping = False
        while not self._stopping:
            self.turn()

    def turn(self) -> None:
        """Wait until a descriptor is ready or a timer due, and call the handlers."""
        while self._timers and self._timers[0][2].action is None:
            heapq.heappop(self._timers)
        timeout = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
        for key, events in self._selector.select(timeout):
            # An earlier handler of this turn may have closed this descriptor.
            if self._selector.get_map().get(key.fd) is key:
                self._call(key, events)
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            self._expire(heapq.heappop(self._timers)[2])

    def stop(self) -> None:
        self._stopping = True

"""The master's one wait point: descriptors, timers and signals, in one thread.

Handlers run to their end, one after another; nothing else changes the master's state. Signals
only set a byte in the wakeup pipe; threads only write to an eventfd that the loop watches.
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

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE

Handler = Callable[[int], None]
"""Called with the ready events (READ, WRITE)."""


class Timer:
    """A deadline that was asked for; ``cancel`` may be called at any time, any number of times."""

    __slots__ = ("action", "when")

    def __init__(self, when: float, action: Callable[[], None]) -> None:
        self.when = when
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        self.action = None


class Loop:
    """Runs handlers until ``stop``."""

    def __init__(self) -> None:
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
        known = fd in self._selector.get_map()
        if events == 0:
            if known:
                self._selector.unregister(fd)
        elif known:
            self._selector.modify(fd, events, handler)
        else:
            self._selector.register(fd, events, handler)

    # ── timers ───────────────────────────────────────────────────────────────────────────────

    def after(self, seconds: float, action: Callable[[], None]) -> Timer:
        """Call ``action`` once, ``seconds`` from now on the monotonic clock."""
        timer = Timer(time.monotonic() + seconds, action)
        heapq.heappush(self._timers, (timer.when, next(self._order), timer))
        return timer

    def soon(self, action: Callable[[], None]) -> None:
        """Call ``action`` once, after the handlers of this round."""
        self.after(0, action)

    # ── signals ──────────────────────────────────────────────────────────────────────────────

    def on_signal(self, number: int, action: Callable[[], None]) -> None:
        """Call ``action`` in the loop when signal ``number`` has come (once for several)."""
        self._signals[number] = action
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        signal.signal(number, lambda *_: None)

    def caught_signals(self) -> set[int]:
        """Take the signals that were caught and not yet acted on out of the wakeup pipe.

        They are nowhere else: an exec would lose them. Those that nobody asked for are left out.
        """
        caught: set[int] = set()
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._awake, 4096):
                caught.update(data)
        return caught & self._signals.keys()

    def _on_signals(self) -> None:
        for number in self.caught_signals():
            if (action := self._signals.get(number)) is not None:
                action()

    # ── running ──────────────────────────────────────────────────────────────────────────────

    def run(self) -> None:
        """Run handlers until one calls ``stop``."""
        self._stopping = False
        while not self._stopping:
            self.turn()

    def turn(self) -> None:
        """Wait for something to do and do it."""
        for key, events in self._selector.select(self._patience()):
            # A handler earlier in this round may have closed this one's descriptor.
            if self._selector.get_map().get(key.fd) is key:
                key.data(events)
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            action = heapq.heappop(self._timers)[2].action
            if action is not None:
                action()

    def stop(self) -> None:
        self._stopping = True

    def _patience(self) -> float | None:
        while self._timers and self._timers[0][2].action is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return None
        return max(0.0, self._timers[0][0] - time.monotonic())

"""Finds the next master for a worker or zygote that has lost its own.

Runs in workers (control thread) and zygotes. Each try is a connect to worker.sock. The first ones
follow quickly, since a service manager starts a new master at once; later ones once a second.
"""

from __future__ import annotations

from taskd.posix.native import monotonic
from taskd.worker.channel import Channel

SOONEST = 0.02
LATEST = 1.0
"""Seconds between two tries: the first pause, and the longest."""

LASTING = 3.0
"""Seconds after which a connection counts as accepted by the master."""

_GROWTH = 1.5


class MasterSearch:
    """One process's search; ``lost`` begins it. A master that hangs up at once does not end it: the
    pauses go on growing, and the time without a master goes on being counted."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._pause = SOONEST
        self._since = self._next = monotonic()
        self._found = -LASTING

    def lost(self) -> None:
        """The connection has ended."""
        now = monotonic()
        if now - self._found >= LASTING:
            self._pause = SOONEST
            self._since = self._next = now

    @property
    def lasted(self) -> float:
        """Seconds since the master was lost."""
        return monotonic() - self._since

    def due_in(self) -> float:
        """Seconds until the next try."""
        return max(0.0, self._next - monotonic())

    def try_now(self, channel: Channel) -> bool:
        """Try to connect ``channel`` to a master; returns whether it is connected."""
        now = monotonic()
        self._next = now + self._pause
        self._pause = min(LATEST, self._pause * _GROWTH)
        if not channel.reopen(self._path):
            return False
        self._found = now
        return True

"""Processes that are ours to watch and not ours to reap: those of a master before this one.

When a master dies, its zygotes (and the workers of dead zygotes) become children of init. Their
deaths are told by pidfds, which stand for that very process for ever; how they ended, nobody
tells us.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

from taskd import log
from taskd.master.loop.loop import READ
from taskd.posix import process
from taskd.posix.process import Identity

if TYPE_CHECKING:
    from taskd.master.master import Master

AGAIN = 0.5
"""Seconds between two tries to get a descriptor for a process."""


class Orphans:
    """Owns the pidfds. Invariant: each watch ends in one call of its ``on_death``."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._watched: dict[int, int] = {}

    def watch(self, who: Identity, on_death: Callable[[], None]) -> None:
        """Call ``on_death`` in the loop once that process is dead, also if it is already."""
        if process.is_gone(who):
            self._master.loop.soon(on_death)
            return
        try:
            fd = os.pidfd_open(who.pid)
        except OSError as error:
            # It died between the two looks, or it is not to be seen from here (another pid
            # namespace), or we are out of descriptors: look again.
            log.warning("cannot watch", pid=who.pid, why=error.strerror)
            self._master.loop.after(AGAIN, lambda: self.watch(who, on_death))
            return
        if process.is_gone(who):  # and its pid went to another, which we have opened
            os.close(fd)
            self._master.loop.soon(on_death)
            return
        self._watched[who.pid] = fd

        def ended(_: int) -> None:
            self._master.loop.watch(fd, 0, ended)
            del self._watched[who.pid]
            os.close(fd)
            self._master.loop.soon(on_death)

        self._master.loop.watch(fd, READ, ended)

    def kill(self, pid: int) -> bool:
        """SIGKILL to the very process that is watched; False if none of that pid is."""
        fd = self._watched.get(pid)
        if fd is None:
            return False
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(fd, signal.SIGKILL)
        return True

"""Watches processes of an earlier master, whose parent this master is not.

When a master dies, its zygotes (and the workers of dead zygotes) become children of init. Pidfds,
each of which stands for one process for ever, report their deaths; only init learns their exit
status.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable

from taskd import log
from taskd.master.loop import READ, Loop
from taskd.posix import process
from taskd.posix.process import Identity


class Orphans:
    """Owns the pidfds. Invariant: each watch ends in one call of its ``on_death``."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._watched: dict[int, int] = {}

    def watch(self, who: Identity, on_death: Callable[[], None]) -> None:
        """Call ``on_death`` in the loop once that process is dead, or soon if it is dead now."""
        if process.is_gone(who):
            self._loop.soon(on_death)
            return
        try:
            fd = os.pidfd_open(who.pid)
        except OSError as error:
            # It died since ``is_gone``, or is in another pid namespace, or no descriptor is left:
            # try again.
            log.warning("cannot watch", pid=who.pid, why=error.strerror)
            self._loop.again(lambda: self.watch(who, on_death))
            return
        if process.is_gone(who):  # and the pidfd may be another process's, which got its pid
            os.close(fd)
            self._loop.soon(on_death)
            return
        self._watched[who.pid] = fd

        def ended(_: int) -> None:
            self._loop.watch(fd, 0, ended)
            del self._watched[who.pid]
            os.close(fd)
            self._loop.soon(on_death)

        self._loop.watch(fd, READ, ended)

    def kill(self, pid: int | None) -> None:
        """Send SIGKILL to the process that is watched under this pid (by its pidfd), or to a child
        of the master."""
        with contextlib.suppress(ProcessLookupError):
            if (fd := self._watched.get(pid or 0)) is not None:
                signal.pidfd_send_signal(fd, signal.SIGKILL)
            elif pid is not None:
                os.kill(pid, signal.SIGKILL)

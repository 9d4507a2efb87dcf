"""The listening sockets: whose they are, who may connect, and who is told of a connection."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Callable, Iterator, Mapping

from taskd import log
from taskd.config import Access
from taskd.master.loop.ledger import Entry, Kind
from taskd.master.loop.loop import READ, Loop
from taskd.paths import CONTROL_SOCKET, SUBMIT_SOCKET, WORKER_SOCKET
from taskd.posix import sockets

ALL = (WORKER_SOCKET, CONTROL_SOCKET, SUBMIT_SOCKET)
"""In the order in which they are heard: workers first, since clients wait for them."""

Accept = Callable[[socket.socket], None]


class Listeners:
    """Owns the sockets by name. ``given``: those that systemd holds, files and modes too.

    ``accept``: whom a connection is told to, by name; set once by the composition root.
    """

    def __init__(self, loop: Loop, directory: str, access: Access) -> None:
        self._loop = loop
        self._directory = directory
        self._access = access
        self._sockets: dict[str, socket.socket] = {}
        self.given: frozenset[str] = frozenset()
        self.accept: Mapping[str, Accept] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._sockets))

    def path(self, name: str) -> str:
        return os.path.join(self._directory, name)

    def keep(self, name: str, listener: socket.socket) -> None:
        self._sockets[name] = listener

    def make(self, name: str) -> None:
        """Raises OSError."""
        self.keep(name, sockets.listen(self.path(name), self._mode(name)))

    def release(self, name: str) -> socket.socket:
        """It is the caller's from now on."""
        return self._sockets.pop(name)

    def carried(self) -> list[Entry]:
        return [Entry(s.fileno(), Kind.LISTENER, name) for name, s in self._sockets.items()]

    def hear(self, *names: str) -> None:
        """Accept connections from now on. Out of descriptors, they are left in the backlog for a
        while (see ``loop``)."""
        for name in names:
            listener, accept = self._sockets[name], self.accept[name]
            self._loop.watch(listener.fileno(), READ, lambda _, a=accept, s=listener: a(s))  # type: ignore[misc]

    def read_now(self, name: str) -> None:
        """Accept what has connected there, without waiting for a turn of the loop."""
        with contextlib.suppress(OSError):  # transient: out of descriptors
            self.accept[name](self._sockets[name])

    def set_modes(self) -> None:
        """Give the sockets the modes that [access] asks for now: a deploy may have changed it.
        Those that systemd holds have the modes that their units say."""
        for name in self._sockets.keys() - self.given:
            path, mode = self.path(name), self._mode(name)
            try:
                if stat.S_IMODE(os.lstat(path).st_mode) != mode:
                    os.chmod(path, mode)
            except OSError as error:
                log.error("cannot set who may connect", socket=path, why=error.strerror)

    def _mode(self, name: str) -> int:
        """Others may connect to a socket only if some of them may use it. Who may, is decided once
        they have connected, by their groups; a mode has only one group."""
        groups = {
            CONTROL_SOCKET: self._access.admin_groups,
            SUBMIT_SOCKET: self._access.admin_groups + self._access.submit_groups,
        }
        return 0o666 if groups.get(name) else 0o600

    def close(self) -> None:
        """The daemon ends: the sockets go, so that clients know at once; those that systemd holds
        stay, and clients wait for the next daemon."""
        for name, listener in self._sockets.items():
            listener.close()
            if name not in self.given:
                with contextlib.suppress(OSError):
                    os.unlink(self.path(name))

"""The listening sockets: their files, their modes, and the handlers of their connections."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Callable, Mapping

from taskd import log
from taskd.config import Access
from taskd.master.loop.ledger import Entry, Kind
from taskd.master.loop.loop import READ, Loop
from taskd.paths import CONTROL_SOCKET, SUBMIT_SOCKET, WORKER_SOCKET
from taskd.posix import sockets

ALL = (WORKER_SOCKET, CONTROL_SOCKET, SUBMIT_SOCKET)
"""In the order in which the master listens: workers first, since clients wait for their tasks."""

Accept = Callable[[socket.socket], None]


class Listeners:
    """``sockets``: by name, owned. ``given``: the names of those that systemd made; their files and
    modes are systemd's. ``accept``: a socket's handler of new connections, by name; the composition
    root sets it once.
    """

    def __init__(self, loop: Loop, directory: str, access: Access) -> None:
        self._loop = loop
        self._directory = directory
        self._access = access
        self.sockets: dict[str, socket.socket] = {}
        self.given: frozenset[str] = frozenset()
        self.accept: Mapping[str, Accept] = {}

    def path(self, name: str) -> str:
        return os.path.join(self._directory, name)

    def make(self, name: str) -> None:
        """Bind the socket to its file. Raises OSError."""
        self.sockets[name] = sockets.listen(self.path(name), self._mode(name))

    def carried(self) -> list[Entry]:
        return [Entry(s.fileno(), Kind.LISTENER, name) for name, s in self.sockets.items()]

    def hear(self, *names: str) -> None:
        """Accept connections from now on. While no descriptor is left, they stay in the backlog
        (``loop`` calls the handler again)."""
        for name in names:
            listener, accept = self.sockets[name], self.accept[name]
            self._loop.watch(listener.fileno(), READ, lambda _, a=accept, s=listener: a(s))  # type: ignore[misc]

    def read_now(self, name: str) -> None:
        """Accept the connections that wait there, without waiting for the loop."""
        with contextlib.suppress(OSError):  # transient error: no descriptor is left
            self.accept[name](self.sockets[name])

    def set_modes(self) -> None:
        """Give the sockets the modes that [access] asks for, which a deploy may have changed.
        Sockets that systemd made keep the modes of their units."""
        for name in self.sockets.keys() - self.given:
            path, mode = self.path(name), self._mode(name)
            try:
                if stat.S_IMODE(os.lstat(path).st_mode) != mode:
                    os.chmod(path, mode)
            except OSError as error:
                log.error("cannot set who may connect", socket=path, why=error.strerror)

    def _mode(self, name: str) -> int:
        """All users may connect to a socket that some group may use: a mode names one group only,
        and the master checks a client's groups once it has connected."""
        groups = {
            CONTROL_SOCKET: self._access.admin_groups,
            SUBMIT_SOCKET: self._access.admin_groups + self._access.submit_groups,
        }
        return 0o666 if groups.get(name) else 0o600

    def close(self) -> None:
        """The daemon ends: remove the sockets' files, so that clients are refused at once. Those
        that systemd made stay, and clients wait there for the next daemon."""
        for name, listener in self.sockets.items():
            listener.close()
            if name not in self.given:
                with contextlib.suppress(OSError):
                    os.unlink(self.path(name))

"""The listening sockets' files: where one is gone, the socket is made anew.

In the master. Somebody cleaned up the runtime directory, or a tool that believed it to be left
over: the daemon would go on, and nobody could reach it. Looked at by ``rounds``; connections that
are open are not concerned. One that systemd holds is not made anew: its unit may have been stopped
on purpose, so that nothing new comes. That nobody can connect is told, and what to do.
"""

from __future__ import annotations

import os
import socket
import stat
from typing import TYPE_CHECKING

from taskd import log, paths
from taskd.errors import Error
from taskd.master.clients.clients import socket_mode
from taskd.posix import sockets

if TYPE_CHECKING:
    from taskd.master.master import Master

OLD_FOR = 60.0
"""Seconds that a socket without a file is listened to still: some may have connected before."""

TOLD_FOR = 30.0
"""Seconds; ``rounds`` looks more often."""

Inode = tuple[int, int]


class Doors:
    """``look`` restores what is gone; what is another's it leaves alone, and says so."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._ours: dict[str, Inode] = {}

    def look(self) -> None:
        """Raises OSError, for want of what passes."""
        for name in list(self._master.listeners):
            where = os.path.join(self._master.places.runtime, name)
            found = _inode(where)
            if found is None and name in self._master.given:
                self._tell(
                    "its socket unit was stopped, or its file removed; to open it again, stop the "
                    "socket unit and restart the service",
                    where,
                )
            elif found is None:
                self._make(name, where)
            elif self._ours.setdefault(name, found) != found:
                self._tell("its file is another's: end that process, and remove the file", where)

    def _make(self, name: str, where: str) -> None:
        try:
            paths.ensure(self._master.places)
        except Error as error:
            self._tell(str(error), where)
            return
        listener = sockets.listen(where, socket_mode(name, self._master.config.access))
        log.warning("a socket's file was gone, and is made anew", socket=where)
        self._let_go(name)
        self._master.adopt_listener(name, listener)
        self._master.hear()
        made = _inode(where)
        if made is not None:
            self._ours[name] = made

    def _let_go(self, name: str) -> None:
        """Of the socket without a file, in a while."""
        old: socket.socket = self._master.listeners[name]
        self._master.ledger.drop(name)

        def close() -> None:
            self._master.loop.watch(old.fileno(), 0, lambda _: None)
            old.close()

        self._master.loop.after(OLD_FOR, close)

    def _tell(self, why: str, where: str) -> None:
        self._master.loop.troubles.tell(f"nobody can connect to {where}", why, lasts=TOLD_FOR)


def _inode(path: str) -> Inode | None:
    """Of the socket there; None if there is nothing, or something else."""
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISSOCK(found.st_mode) else None

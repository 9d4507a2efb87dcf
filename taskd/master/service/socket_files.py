"""Makes a listening socket anew when its file was removed.

An operator or a tool may clean up the runtime directory: the daemon would go on, and no client
could connect to it. Open connections are not disturbed. A socket that systemd holds is not made
anew: the operator may have stopped its unit so that no client connects. Then, and where the file
belongs to another process, the daemon reports a trouble that says what to do.
"""

from __future__ import annotations

import os
import stat

from taskd import log, paths
from taskd.errors import Error
from taskd.master.loop import Listeners, Loop

OLD_FOR = 60.0
"""Seconds that the daemon still accepts from a socket without a file, for clients in its queue."""

TOLD_FOR = 30.0
"""Seconds that a trouble lasts: longer than the time between two periodic checks."""

Inode = tuple[int, int]


class SocketFiles:
    """``look`` makes sockets anew whose files are gone; it leaves other processes' files alone."""

    def __init__(self, loop: Loop, places: paths.Places, listeners: Listeners) -> None:
        self._loop = loop
        self._places = places
        self._listeners = listeners
        self._known: dict[str, Inode] = {}

    def look(self) -> None:
        """Raises OSError: a transient error."""
        for name in list(self._listeners.sockets):
            found = _inode(self._listeners.path(name))
            if found is None and name in self._listeners.given:
                self._tell(
                    name,
                    "its socket unit was stopped, or its file removed; to open it again, stop the "
                    "socket unit and restart the service",
                )
            elif found is None:
                self._make(name)
            elif self._known.setdefault(name, found) != found:
                self._tell(name, "its file is another's: end that process, and remove the file")

    def _make(self, name: str) -> None:
        """Make a socket anew; the one without a file is closed after OLD_FOR."""
        try:
            paths.ensure(self._places)
        except Error as error:
            self._tell(name, str(error))
            return
        old = self._listeners.sockets.pop(name)
        try:
            self._listeners.make(name)
        except OSError:
            self._listeners.sockets[name] = old
            raise
        log.warning("a socket's file was gone, and is made anew", socket=self._listeners.path(name))
        self._listeners.hear(name)
        if (made := _inode(self._listeners.path(name))) is not None:
            self._known[name] = made

        def close() -> None:
            self._loop.watch(old.fileno(), 0, lambda _: None)
            old.close()

        self._loop.after(OLD_FOR, close)

    def _tell(self, name: str, why: str) -> None:
        self._loop.troubles.tell(
            f"nobody can connect to {self._listeners.path(name)}", why, lasts=TOLD_FOR
        )


def _inode(path: str) -> Inode | None:
    """The device and inode of the socket at ``path``; None if there is no socket."""
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISSOCK(found.st_mode) else None

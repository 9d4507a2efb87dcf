"""Which socket a client connects to.

In order: the one that is named (``--socket``, ``Client(socket=…)``), else $TASKD_SOCKET, else the
user's own runtime directory if there is one (also when its daemon is down: a user who runs one
means that one), else the system's. A name is a socket, or a directory of them: there control.sock
if one may use it, else submit.sock. Whether one may, the file's mode tells or, where others may
connect to it, the daemon in place of its hello.
"""

from __future__ import annotations

import errno
import os
import socket as sockets
import stat
from collections.abc import Mapping

from taskd import paths
from taskd.errors import NoDaemon
from taskd.posix.sockets import connect as connect_socket

VARIABLE = "TASKD_SOCKET"

_SOCKETS = (paths.CONTROL_SOCKET, paths.SUBMIT_SOCKET)

_WHY = {
    errno.ENOENT: "does not exist",
    errno.ECONNREFUSED: "no process listens on it",
    errno.EACCES: "you may not connect to it",
    errno.ENOTDIR: "does not exist",
    errno.ENOTSOCK: "is not a socket",
    errno.EPROTOTYPE: "is not a socket of the right kind",
    errno.EAGAIN: "its daemon does not take connections",
}


def place(socket: str | None, environ: Mapping[str, str] | None = None) -> str:
    """The socket, or directory of sockets, to use; ``socket``: as named by the user, or None."""
    environ = os.environ if environ is None else environ
    named = socket or environ.get(VARIABLE)
    if named:
        return os.path.abspath(named)
    own = paths.user_runtime_dir(environ)
    return own if paths.is_own(own, os.getuid()) else paths.SYSTEM_RUNTIME_DIR


def candidates(where: str) -> list[str]:
    """The sockets to try, in order, for a ``place``."""
    if os.path.isdir(where) or where == paths.SYSTEM_RUNTIME_DIR:
        return [os.path.join(where, name) for name in _SOCKETS]
    return [where]


class Address:
    """Where one client connects.

    Invariant: ``_closed`` has those sockets whose daemon said that our user may not use them.
    """

    __slots__ = ("_closed", "_last", "_socket")

    def __init__(self, socket: str | None) -> None:
        """``socket``: as named by the user, or None."""
        self._socket = socket
        self._closed: set[str] = set()
        self._last = ""

    @property
    def log(self) -> str:
        """Where the daemon's log is, in words."""
        unit = _unit(place(self._socket))
        return f"`journalctl -u {unit}`" if unit is not None else "its log"

    def connect(self, timeout: float | None) -> sockets.socket:
        """A connection to the daemon, ``timeout`` seconds set on it.

        Raises NoDaemon naming each socket that was tried, why it failed, and what to do.
        """
        where = place(self._socket)
        tried: list[tuple[str, OSError]] = []
        found = candidates(where)
        # All of them where none is left, so that the daemon says again why it refuses our user.
        for path in [path for path in found if path not in self._closed] or found:
            try:
                _check(path)
                connection = connect_socket(path, timeout)
                self._last = path
                return connection
            except OSError as error:
                tried.append((path, error))
            except ValueError as error:  # no path at all: a NUL in it, or half a character
                tried.append((path, OSError(str(error))))
        raise NoDaemon(_explanation(where, tried))

    def turned_away(self) -> bool:
        """The daemon said that our user may not use the last connection's socket; returns
        whether there is another one to try."""
        self._closed.add(self._last)
        return bool(set(candidates(place(self._socket))) - self._closed)


def _check(path: str) -> None:
    """Raises OSError for a path that connecting to would not explain: the workers' socket accepts a
    client and hangs up; a plain file that may not be written fails as another user's socket does
    (EACCES)."""
    if os.path.basename(os.path.realpath(path)) == paths.WORKER_SOCKET:
        raise OSError(
            f"is the workers' socket: name {paths.CONTROL_SOCKET} or {paths.SUBMIT_SOCKET} beside "
            "it, or their directory"
        )
    try:
        is_socket = stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return  # connecting says why
    if not is_socket:
        raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK))


def _explanation(where: str, tried: list[tuple[str, OSError]]) -> str:
    lines = ["no daemon is reachable; tried:"]
    for path, error in tried:
        number = errno.EAGAIN if isinstance(error, TimeoutError) else error.errno or 0
        why = _WHY.get(number) or error.strerror or str(error)
        lines.append(f"  {path}: {why}")
    if all(error.errno == errno.EACCES for _, error in tried):
        lines.append(
            "Ask its administrator for a place in [access] submit_groups of taskd.toml "
            "(admin_groups, to do more than submit)."
        )
    elif (unit := _unit(where)) is not None:
        lines.append(
            f"Start it with `systemctl start {unit}`, or one of your own with `taskd run`."
        )
    else:
        lines.append(f"Start it with `taskd run`, or name another with --socket or ${VARIABLE}.")
    return "\n".join(lines)


def _unit(where: str) -> str | None:
    """The system's unit whose daemon has its sockets there, as `taskd install` names units and
    directories; None for any other place."""
    names_socket = os.path.basename(where) in (*_SOCKETS, paths.WORKER_SOCKET)
    directory = os.path.dirname(where) if names_socket else where
    instance = directory.removeprefix(paths.SYSTEM_RUNTIME_DIR + "-")
    if directory == paths.SYSTEM_RUNTIME_DIR:
        return "taskd"
    return f"taskd@{instance}" if instance != directory and "/" not in instance else None

"""Sockets that systemd holds for the daemon and hands to it at its start (socket activation).

Runs in the master, once, at a start. systemd listens before the daemon runs and while it restarts,
so that connections made meanwhile wait in the socket instead of being refused. The environment
variables would hold for every later image with the same pid, so they are read once and removed: a
later image gets the sockets by the snapshot.

Source: sd_listen_fds(3), systemd.socket(5).
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping

from taskd.record import Record

_FIRST = 3
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


def announced(environ: MutableMapping[str, str], pid: int) -> dict[int, str]:
    """The descriptors that systemd hands to process ``pid``, and their names in the units."""
    if environ.get("LISTEN_PID") != str(pid):
        return {}
    try:
        count = int(environ.get("LISTEN_FDS", "0"))
    except ValueError:
        return {}
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    names += [""] * (count - len(names))
    return dict(zip(range(_FIRST, _FIRST + count), names, strict=False))


class Taken(Record):
    """``listeners``: by the names that the caller wanted; ``refused``: other descriptors, in words,
    which are closed."""

    listeners: dict[str, socket.socket]
    refused: list[str]


def take(environ: MutableMapping[str, str], pid: int, wanted: dict[str, str]) -> Taken:
    """Take the listening sockets that are ``wanted`` (path: name), close all other descriptors that
    systemd has handed over, and remove its variables.

    A socket is recognized by the path that it is bound to.
    """
    taken = Taken({}, [])
    wanted = {os.path.realpath(path): name for path, name in wanted.items()}
    for fd, called in announced(environ, pid).items():
        path, listener = _listener(fd)
        name = wanted.get(os.path.realpath(path)) if path else None
        if listener is None or name is None or name in taken.listeners:
            os.close(listener.detach() if listener is not None else fd)
            taken.refused.append(f"{called or fd} ({path})" if path else called or str(fd))
            continue
        listener.set_inheritable(False)
        listener.setblocking(False)
        taken.listeners[name] = listener
    for variable in _VARIABLES:
        environ.pop(variable, None)
    return taken


def _listener(fd: int) -> tuple[str, socket.socket | None]:
    """The path at which ``fd`` listens, and the socket; "" and None if it is not a Unix stream
    socket that listens."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        return "", None
    is_stream = sock.family == socket.AF_UNIX and sock.type == socket.SOCK_STREAM
    listens = is_stream and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    path = sock.getsockname() if is_stream else ""
    if not listens or not isinstance(path, str):
        sock.detach()
        return "", None
    return path, sock

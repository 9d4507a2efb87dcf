"""The descriptors that this process has open, and what each of them stands for.

Used in zygotes and workers, where the app's own code opens what it likes.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import Any

from taskd.posix import files

File = tuple[int, int]
"""Device and inode, as ``files.identity`` has them."""


def opened() -> dict[int, File]:
    """Every descriptor, and the file that it stands for."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one that the list was read by
            found[int(name)] = files.identity(int(name))
    return found


def is_file(fd: int) -> bool:
    """Whether it is a regular file. Raises OSError if it is not open."""
    return stat.S_ISREG(os.fstat(fd).st_mode)


def locks(fd: int) -> list[str]:
    """The locks that this process has on its file, as the kernel words them; none if it is gone."""
    with contextlib.suppress(OSError), open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
        return [line for line in file if line.startswith("lock:")]
    return []


def peer(fd: int, streams_alone: bool = False) -> str | None:
    """Whom a socket is connected with, such as ``127.0.0.1:5432``; None for whatever else it is (a
    pair of sockets within this process, say). ``streams_alone``: not datagrams."""
    import _socket  # as it is, whatever an app has made of the module ``socket``

    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return None
        sock = _socket.socket(fileno=fd)
    except OSError:
        return None
    try:
        if streams_alone and sock.type == _socket.SOCK_DGRAM:
            return None
        return _shown(sock.getpeername())
    except OSError:
        return None
    finally:
        sock.detach()


def _shown(address: Any) -> str | None:
    if isinstance(address, tuple):
        host = f"[{address[0]}]" if ":" in str(address[0]) else address[0]
        return f"{host}:{address[1]}"
    return os.fsdecode(address).replace("\0", "@") or None


def name(fd: int) -> str:
    """What it stands for, in words."""
    found = peer(fd)
    if found is not None:
        return f"a connection with {found}"
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return f"descriptor {fd}"

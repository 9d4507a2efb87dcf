"""The open descriptors of this process, and the file or peer of each.

Used in zygotes and workers, where the app's code opens descriptors of its own.
"""

from __future__ import annotations

import contextlib
import os
import stat

from taskd.posix import files

File = tuple[int, int]
"""Device and inode, as ``files.identity`` has them."""


def opened() -> dict[int, File]:
    """The file of every open descriptor."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one that listdir itself used
            found[int(name)] = files.identity(int(name))
    return found


def is_file(fd: int) -> bool:
    """Whether the descriptor is of a regular file. Raises OSError if it is not open."""
    return stat.S_ISREG(os.fstat(fd).st_mode)


def locks(fd: int) -> list[str]:
    """The locks that this process has on the descriptor's file, in the kernel's words; none if the
    descriptor is closed."""
    with contextlib.suppress(OSError), open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
        return [line for line in file if line.startswith("lock:")]
    return []


def peer(fd: int, streams_alone: bool = False) -> str | None:
    """The peer of a connected socket, such as ``127.0.0.1:5432``. None for other descriptors, for a
    pair of sockets within this process and, with ``streams_alone``, for datagram sockets."""
    import _socket  # the original, whatever an app has put into the module ``socket``

    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return None
        sock = _socket.socket(fileno=fd)
    except OSError:
        return None
    try:
        if streams_alone and sock.type == _socket.SOCK_DGRAM:
            return None
        address = sock.getpeername()
    except OSError:
        return None
    finally:
        sock.detach()
    if isinstance(address, tuple):
        host = f"[{address[0]}]" if ":" in str(address[0]) else address[0]
        return f"{host}:{address[1]}"
    return os.fsdecode(address).replace("\0", "@") or None


def name(fd: int) -> str:
    """What the descriptor is of, in words."""
    found = peer(fd)
    if found is not None:
        return f"a connection with {found}"
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return f"descriptor {fd}"

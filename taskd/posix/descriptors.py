"""The open descriptors of this process, and the file or peer of each.

Used in zygotes and workers, where the app's code opens descriptors of its own.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from typing import Any

from taskd.posix import files

File = tuple[int, int]
"""Device and inode, as ``files.identity`` has them."""

_DATAGRAMS = 2  # SOCK_DGRAM; the module ``socket`` may be the app's


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


def is_exclusive(fd: int) -> bool:
    """Whether the descriptor keeps something from everybody else: a lock on its file, or the
    address that its socket is bound to, as a server's is."""
    if locks(fd):
        return True
    _, own, peer = _ends(fd) or (None, None, None)
    return peer is None and bool(own[1] if isinstance(own, tuple) else own)


def peer(fd: int, streams_alone: bool = False) -> str | None:
    """The peer of a connected socket, such as ``127.0.0.1:5432``. None for other descriptors, for a
    pair of sockets within this process and, with ``streams_alone``, for datagram sockets."""
    kind, _, address = _ends(fd) or (None, None, None)
    if address is None or (streams_alone and kind == _DATAGRAMS):
        return None
    if isinstance(address, tuple):
        host = f"[{address[0]}]" if ":" in str(address[0]) else address[0]
        return f"{host}:{address[1]}"
    return os.fsdecode(address).replace("\0", "@") or None


def _ends(fd: int) -> tuple[int, Any, Any] | None:
    """A socket's type, its own address and its peer's; None in place of one that it does not have.
    None for other descriptors."""
    import _socket  # the original, whatever an app has put into the module ``socket``

    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return None
        sock = _socket.socket(fileno=fd)
    except OSError:
        return None
    try:
        return sock.type, _unless_refused(sock.getsockname), _unless_refused(sock.getpeername)
    finally:
        sock.detach()


def _unless_refused(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except OSError:
        return None


def name(fd: int) -> str:
    """What the descriptor is of, in words."""
    found = peer(fd)
    if found is not None:
        return f"a connection with {found}"
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return f"descriptor {fd}"

"""Unix stream sockets: listening, connecting, and the credentials of the peer.

A socket's address has at most 107 bytes for the path (unix(7)). A longer path is reached through a
descriptor of its directory, as /proc/self/fd/N/NAME.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Callable
from typing import TypeVar

from taskd.posix import native
from taskd.record import Record

_ADDRESS_LIMIT = 107
_SO_PEERGROUPS = 59  # <asm-generic/socket.h>; not in the socket module
_MOST_GROUPS = 65536  # NGROUPS_MAX, <linux/limits.h>
_BACKLOG = 1024

T = TypeVar("T")


class Peer(Record):
    """The peer's process, as the kernel tells it; as of the time when it connected."""

    pid: int
    uid: int
    gid: int


def _reach(path: str, use: Callable[[str], T]) -> T:
    """Call ``use`` with an address of ``path`` that is short enough for the kernel."""
    if len(os.fsencode(path)) <= _ADDRESS_LIMIT:
        return use(path)
    directory = os.open(os.path.dirname(path) or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return use(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
    finally:
        native.close(directory)


def listen(path: str, mode: int = 0o600) -> socket.socket:
    """A listening socket at ``path``, non-blocking; replaces what is there.

    It is bound under another name and renamed into place once it has its mode and listens: no
    client meets it half made, and an older daemon's dead socket is replaced in one step. Raises
    OSError.
    """
    made = f"{path}.{os.getpid()}.new"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(made)  # left by a start that was killed and had our pid
        before = os.umask(0o177)
        try:
            _reach(made, sock.bind)
        finally:
            os.umask(before)
        os.chmod(made, mode)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
        os.rename(made, path)
    except OSError:
        sock.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(made)
        raise
    return sock


def connect(
    path: str, timeout: float | None = None, kind: type[socket.socket] | None = None
) -> socket.socket:
    """A connection to the socket at ``path``; ``timeout`` in seconds stays set. ``kind``: a socket
    class, for callers that must not use the one that an app has put in its place. Raises OSError.

    While the listener's queue is full, it waits up to ``timeout``. A timeout that Python sets would
    make the socket non-blocking, and the connect would fail with EAGAIN.
    """
    sock = (kind or socket.socket)(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _set_patience(sock, timeout or 0)
        _reach(path, sock.connect)
        _set_patience(sock, 0)
        sock.settimeout(timeout)
    except BaseException:  # also KeyboardInterrupt, and ValueError of a bad path
        sock.close()
        raise
    return sock


def _set_patience(sock: socket.socket, seconds: float) -> None:
    """Set how long a blocking connect or send waits (SO_SNDTIMEO, socket(7)); 0: for ever."""
    whole = int(seconds)
    value = struct.pack("@ll", whole, int((seconds - whole) * 1_000_000))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)


def peer(sock: socket.socket) -> Peer:
    """The peer's process and user (SO_PEERCRED, unix(7)). Raises OSError."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return Peer(*struct.unpack("iII", raw))


def peer_groups(sock: socket.socket) -> frozenset[int]:
    """The peer's supplementary groups when it connected (SO_PEERGROUPS). Raises OSError."""
    import ctypes

    from taskd.posix import libc

    groups = (ctypes.c_uint32 * _MOST_GROUPS)()  # Python's own getsockopt gives 1 KiB at most
    size = ctypes.c_uint32(ctypes.sizeof(groups))
    at = (socket.SOL_SOCKET, _SO_PEERGROUPS, groups, ctypes.byref(size))
    if libc.getsockopt(sock.fileno(), *at) != 0:
        raise libc.error("getsockopt(SO_PEERGROUPS)")
    return frozenset(groups[: size.value // 4])

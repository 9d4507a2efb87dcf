"""Unix stream sockets: listening, connecting, and who is at the other end.

A socket's path may hold at most 107 bytes in the kernel's address (unix(7)). A longer one is
reached through a descriptor of its directory, as /proc/self/fd/N/NAME.
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
    """The process at the other end, as the kernel vouches for it: at the time it connected."""

    pid: int
    uid: int
    gid: int


def _reach(path: str, use: Callable[[str], T]) -> T:
    """Call ``use`` with an address of ``path`` that fits into the kernel's limit."""
    if len(os.fsencode(path)) <= _ADDRESS_LIMIT:
        return use(path)
    directory = os.open(os.path.dirname(path) or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return use(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
    finally:
        native.close(directory)


def listen(path: str, mode: int = 0o600) -> socket.socket:
    """A listening socket at ``path``, non-blocking, replacing what is there.

    It is bound under another name and renamed into place only when it has its mode and listens:
    nobody ever meets it half made, and an older daemon's dead socket is replaced in one step.
    Raises OSError.
    """
    made = f"{path}.{os.getpid()}.new"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove(made)  # a start that was killed may have had our pid
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
        _remove(made)
        raise
    return sock


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def connect(
    path: str, timeout: float | None = None, kind: type[socket.socket] | None = None
) -> socket.socket:
    """A connection to the socket at ``path``; ``timeout`` in seconds stays set. ``kind``: another
    class than what the app has for sockets. Raises OSError.

    While too many others wait to be let in, it waits as well: a socket with a timeout of Python's
    own would not, since that makes it non-blocking for the kernel.
    """
    sock = (kind or socket.socket)(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _set_patience(sock, timeout or 0)
        _reach(path, sock.connect)
        _set_patience(sock, 0)
        sock.settimeout(timeout)
    except BaseException:  # also Ctrl-C, and a path that is none (ValueError)
        sock.close()
        raise
    return sock


def _set_patience(sock: socket.socket, seconds: float) -> None:
    """How long a blocking connect and send may wait (SO_SNDTIMEO, socket(7)); 0: for ever."""
    whole = int(seconds)
    value = struct.pack("@ll", whole, int((seconds - whole) * 1_000_000))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)


def peer(sock: socket.socket) -> Peer:
    """Who connected. Source: SO_PEERCRED, unix(7). Raises OSError."""
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

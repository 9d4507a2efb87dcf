"""A zygote's or worker's connection to the master, and its search for the next master.

Writes block (the master always reads; a message is small); ``receive`` is called when poll reports
data. The loss of the master is no error: ``lost`` turns True, and messages are dropped until
``reopen`` has connected to another master. Each try of a search is a connect to worker.sock. The
first ones follow quickly, since a service manager starts a new master at once; later ones once a
second.
"""

from __future__ import annotations

import errno
import os
from typing import Any

from taskd.errors import ProtocolError
from taskd.posix import files, native, sockets
from taskd.protocol import cbor, frames

_CHUNK = 65536

_PATIENCE = 1.0
"""Seconds that ``reopen`` waits for a master whose backlog is full."""

SOONEST = 0.02
LATEST = 1.0
"""Seconds between two tries: the first pause, and the longest."""

LASTING = 3.0
"""Seconds after which a connection counts as accepted by the master."""

_GROWTH = 1.5


class Channel:
    """Messages to and from the master. ``send`` may be called from any thread."""

    def __init__(self, sock: native.socket) -> None:
        self._sending = native.allocate_lock()
        self._take(sock)

    @classmethod
    def connect(cls, path: str) -> Channel:
        """Raises OSError if no master listens at ``path``."""
        return cls(sockets.connect(path, kind=native.socket))

    def reopen(self, path: str) -> bool:
        """Connect again, to the master that listens at ``path`` now; False if none does.

        The caller has unregistered the old descriptor from its polls.
        """
        try:
            sock = sockets.connect(path, _PATIENCE, native.socket)
        except OSError:
            return False
        sock.settimeout(None)
        with self._sending:
            self._close_socket()
            self._take(sock)
        return True

    def _take(self, sock: native.socket) -> None:
        """Use ``sock`` from now on, at a number that user code is unlikely to close."""
        self._sock = native.socket(fileno=files.out_of_the_way(sock.detach()))
        self._inode = os.fstat(self._sock.fileno()).st_ino
        self._decoder = frames.Decoder()
        self.lost = False

    def fileno(self) -> int:
        return self._sock.fileno()

    def send(self, message: dict[str, Any]) -> None:
        frame = frames.encode(message)
        with self._sending:
            if self.lost:
                return
            try:
                if not self._is_ours():
                    raise OSError(errno.EBADF, "closed by user code")
                self._sock.sendall(frame)
            except OSError:
                self.lost = True

    def has_unread(self) -> bool:
        """Whether ``receive`` would return messages, or find that the master is lost."""
        poll = native.poll()
        poll.register(self._sock, native.POLLIN)
        return bool(poll.poll(0))

    def receive(self) -> list[dict[str, Any]]:
        """The messages of one read (call when readable); sets ``lost`` at the stream's end."""
        try:
            data = self._sock.recv(_CHUNK) if self._is_ours() else b""
        except OSError:
            data = b""
        if not data:
            self.lost = True
            return []
        self._decoder.feed(data)
        messages = []
        try:
            while (message := self._decoder.next()) is not None:
                messages.append(message)
        except ProtocolError:
            self.lost = True  # its messages cannot be read: as if it were gone
        return messages

    def close(self) -> None:
        self.lost = True
        self._close_socket()

    def _is_ours(self) -> bool:
        """Whether the descriptor is still our socket: user code may have closed it, and have a file
        of its own at that number."""
        try:
            return os.fstat(self._sock.fileno()).st_ino == self._inode
        except OSError:
            return False

    def _close_socket(self) -> None:
        if self._is_ours():
            self._sock.close()
        else:
            self._sock.detach()


class MasterSearch:
    """One process's search; ``lost`` begins it. A master that hangs up at once does not end it: the
    pauses go on growing, and the time without a master goes on being counted."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._pause = SOONEST
        self._since = self._next = native.monotonic()
        self._found = -LASTING

    def lost(self) -> None:
        """The connection has ended."""
        now = native.monotonic()
        if now - self._found >= LASTING:
            self._pause = SOONEST
            self._since = self._next = now

    @property
    def lasted(self) -> float:
        """Seconds since the master was lost."""
        return native.monotonic() - self._since

    def due_in(self) -> float:
        """Seconds until the next try."""
        return max(0.0, self._next - native.monotonic())

    def try_now(self, channel: Channel) -> bool:
        """Try to connect ``channel`` to a master; returns whether it is connected."""
        now = native.monotonic()
        self._next = now + self._pause
        self._pause = min(LATEST, self._pause * _GROWTH)
        if not channel.reopen(self._path):
            return False
        self._found = now
        return True


def read_once(path: str) -> Any:
    """The message in the file at ``path``, which is removed: a large message comes in a file.
    Raises OSError and ProtocolError."""
    with open(files.open_own(path, os.O_RDONLY), "rb") as file:
        raw = file.read()
    os.unlink(path)
    return cbor.loads(raw)

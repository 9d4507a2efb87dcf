"""Whether the store's files hold what was written there, as far as the files themselves can tell.

In the master, at a start after which nothing is known: not after an exec. SQLite by itself finds
damage where it happens to read; and a log whose middle is damaged it takes for one that ends there,
so that what was committed behind that would be gone without a word.

* ``check_log``: before the store is opened. The log ("-wal") has a frame for each page written, and
  each transaction's last frame says so. A transaction is begun only once the one before is synced.
  So, if frames follow the end of a transaction that SQLite does not accept, that one had been
  synced: no power cut did that. Frames of the log's former use have another salt, and do not count.
* ``Check``: reads the whole store, in a thread of its own, since that takes a second for each few
  hundred megabytes.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Iterator

from taskd import errors
from taskd.posix import files
from taskd.store import connection

_LOG_HEADER = struct.Struct(">IIIIIIII")  # sqlite.org/fileformat2.html#walformat
_FRAME_HEADER = struct.Struct(">IIIIII")
_ACCEPTED = struct.Struct("=I")  # in the log's index, at _ACCEPTED_AT
_ACCEPTED_AT = 16


def check_log(path: str) -> None:
    """Raises StoreDamaged if the log of the store at ``path`` is damaged in its middle. Where that
    cannot be told, opening the store says why. No connection to it may be open in this process."""
    log = f"{path}-wal"
    try:
        if os.path.getsize(log) <= _LOG_HEADER.size:
            return
        connection.touch(path)  # SQLite looks how much of the log it accepts
        accepted = _accepted(f"{path}-shm")
        lost = _is_followed(log, accepted)
    except (OSError, struct.error, sqlite3.Error, errors.StoreError):
        return  # no log, no store yet, or none at all
    if lost:
        raise errors.StoreDamaged(
            f"the store's log {log} is damaged behind frame {accepted}: what was committed after "
            "that would be lost. Restore the store and its log from a backup; or, to go on without "
            "what is lost, move that file away (nothing was changed)"
        )


def _accepted(index: str) -> int:
    """How many frames SQLite found to be whole, up to the last end of a transaction."""
    with open(files.open_own(index, os.O_RDONLY), "rb") as file:
        file.seek(_ACCEPTED_AT)
        return int(_ACCEPTED.unpack(file.read(_ACCEPTED.size))[0])


def _is_followed(log: str, accepted: int) -> bool:
    """Whether more frames of this log follow the end of the first transaction not accepted."""
    frames = _ends(log, accepted)
    return any(frames) and next(frames, None) is not None


def _ends(log: str, after: int) -> Iterator[bool]:
    """Of each frame of the log's present use behind number ``after``: whether it ends a
    transaction."""
    with open(files.open_own(log, os.O_RDONLY), "rb") as file:
        header = _LOG_HEADER.unpack(file.read(_LOG_HEADER.size))
        page, salts = header[2], header[4:6]
        size = _FRAME_HEADER.size + page
        at = _LOG_HEADER.size + after * size
        while len(raw := os.pread(file.fileno(), _FRAME_HEADER.size, at)) == _FRAME_HEADER.size:
            frame = _FRAME_HEADER.unpack(raw)
            if frame[2:4] == salts:
                yield frame[1] != 0
            at += size


class Check:
    """Under way from its beginning; ``damage`` is what it found, once ``is_over``."""

    def __init__(self, path: str, notify_fd: int) -> None:
        """``notify_fd``: an eventfd that is written to once it is over."""
        self._path = path
        self._notify_fd = notify_fd
        self.damage: errors.StoreError | None = None
        self.is_over = False

    def run(self) -> None:
        """In its thread."""
        try:
            self.damage = self._look()
        finally:
            self.is_over = True
            os.eventfd_write(self._notify_fd, 1)

    def _look(self) -> errors.StoreError | None:
        try:
            reading = connection.open_reading(self._path)
            try:
                found = reading.execute("pragma quick_check(1)").fetchone()[0]
            finally:
                reading.close()
        except sqlite3.Error as error:
            failed = connection.failure(error, self._path)
            return failed if isinstance(failed, errors.StoreDamaged) else None
        except errors.StoreError:
            return None  # it could not look, which says nothing
        return None if found == "ok" else connection.damaged(self._path, found)

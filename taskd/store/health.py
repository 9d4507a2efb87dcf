"""Whether the store's files are damaged, as far as the files themselves can tell.

Runs in the master, at a start after a crash, a stop or a reboot: not after an exec. SQLite finds
damage only where it happens to read. And it takes a write-ahead log ("-wal") with a damaged middle
for one that ends there: what was committed behind that would be gone without a word.

* ``check_log``: before the store is opened. The log has a frame for each page written, and each
  transaction's last frame says that it is the last. A transaction begins only after the one before
  is synced. So, if frames follow the end of a transaction that SQLite does not accept, that one had
  been synced, and no power cut did that. Frames of the log's former use have another salt, and do
  not count.
* ``Check``: reads the whole store, in a thread of its own, since that takes a second for each few
  hundred megabytes.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import struct
from collections.abc import Iterator

from taskd import errors
from taskd.posix import files
from taskd.store import connection

_LOG_HEADER = struct.Struct(">IIIIIIII")  # sqlite.org/fileformat2.html#walformat
_FRAME_HEADER = struct.Struct(">IIIIII")
_ACCEPTED = struct.Struct("=I")  # in the index ("-shm"): how many whole frames SQLite found
_ACCEPTED_AT = 16


def check_log(path: str) -> None:
    """Raises StoreDamaged if the log of the store at ``path`` is damaged in its middle. Where that
    cannot be told, opening the store says why. No connection to it may be open in this process."""
    log = f"{path}-wal"
    try:
        if os.path.getsize(log) <= _LOG_HEADER.size:
            return
        with contextlib.closing(connection.connect(path, "ro")) as reading:
            reading.execute("pragma schema_version").fetchone()  # SQLite checks the log's frames
        with open(files.open_own(f"{path}-shm", os.O_RDONLY), "rb") as index:
            index.seek(_ACCEPTED_AT)
            accepted = int(_ACCEPTED.unpack(index.read(_ACCEPTED.size))[0])
        frames = _ends(log, accepted)
        lost = any(frames) and next(frames, None) is not None
    except (OSError, struct.error, sqlite3.Error, errors.StoreError):
        return  # no log, or no store
    if lost:
        raise errors.StoreDamaged(
            f"the store's log {log} is damaged behind frame {accepted}: what was committed after "
            "that would be lost. Restore the store and its log from a backup; or, to go on without "
            "what is lost, move that file away (nothing was changed)"
        )


def _ends(log: str, after: int) -> Iterator[bool]:
    """For each frame of the log's present use behind frame ``after``: whether it ends a
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
    """Reads the whole store once: ``run``, in a thread. ``damage`` is set before ``is_over``."""

    def __init__(self, path: str, notify_fd: int) -> None:
        """``notify_fd``: an eventfd that is written to at the end."""
        self._path = path
        self._notify_fd = notify_fd
        self.damage: errors.StoreError | None = None
        self.is_over = False

    def run(self) -> None:
        """Finds ``damage``, or None: there is none, or the store could not be read, which says
        nothing of its content."""
        try:
            with contextlib.closing(connection.open_reading(self._path)) as reading:
                found = reading.execute("pragma quick_check(1)").fetchone()[0]
            if found != "ok":
                self.damage = connection.damaged(self._path, found)
        except sqlite3.Error as error:
            failed = connection.failure(error, self._path)
            self.damage = failed if isinstance(failed, errors.StoreDamaged) else None
        except errors.StoreError:
            return
        finally:
            self.is_over = True
            os.eventfd_write(self._notify_fd, 1)

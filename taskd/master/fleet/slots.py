"""Removes the slot files of dead workers, and no other worker's."""

from __future__ import annotations

import contextlib
import os

from taskd.errors import Error
from taskd.master.fleet.worker import Worker
from taskd.posix import files
from taskd.slot import layout, reader


def drop_slot(directory: str, worker: Worker) -> None:
    """Remove the slot of a dead worker whose attempt is recorded. A file of that name that is
    another worker's stays; one that cannot be read or removed is left to a sweep."""
    path = os.path.join(directory, layout.file_name(worker.id))
    with contextlib.suppress(Error, OSError):
        fd = reader.open_slot(path)
        try:
            if reader.read_header(fd).worker == worker.id:
                unlink(path, files.identity(fd))
        finally:
            os.close(fd)


def unlink(path: str, file: tuple[int, int] | None = None) -> None:
    """Remove the file at ``path``, only if it is ``file`` (its device and inode) if that is given.
    If that fails (a directory that is read-only just now), a later sweep removes it."""
    with contextlib.suppress(OSError):
        if file is None or files.is_at(path, file):
            os.unlink(path)

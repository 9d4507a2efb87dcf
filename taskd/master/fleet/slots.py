"""The slots of workers that are dead, as files: removed, but never another's."""

from __future__ import annotations

import contextlib
import os

from taskd.errors import Error
from taskd.master.fleet.worker import Worker
from taskd.posix import files
from taskd.slot import layout, reader


def drop_slot(directory: str, worker: Worker) -> None:
    """The worker is dead, and what its slot was a sign of is recorded. A file under its name that
    is another's stays, and one that cannot be read or removed is left to a sweep."""
    path = os.path.join(directory, layout.file_name(worker.id))
    with contextlib.suppress(Error, OSError):
        fd = reader.open_slot(path)
        try:
            if reader.read_header(fd).worker == worker.id:
                unlink(path, files.identity(fd))
        finally:
            os.close(fd)


def unlink(path: str, file: tuple[int, int] | None = None) -> None:
    """``file``: only if the path still leads to that one. Where it cannot be removed (a directory
    that may not be written to just now), a later sweep does it."""
    with contextlib.suppress(OSError):
        if file is None or files.is_at(path, file):
            os.unlink(path)

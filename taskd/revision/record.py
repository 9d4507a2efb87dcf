"""A zygote's record: a file by which a later master, which did not start the zygote, can adopt it.

One file ``ID.zygote`` for each zygote: one CBOR map. Once its revision is proven, the zygote writes
it under a temporary name, locks it (for its whole life, as a worker locks its slot), syncs it and
renames it into place. The master reads it, and removes it when the revision is gone. Unknown fields
are ignored. A zygote is gone when its lock is free *and* its process is gone.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

import cbor2

from taskd.errors import Error, ProtocolError
from taskd.posix import files, locks, process
from taskd.posix.process import Identity
from taskd.protocol import cbor, fields
from taskd.record import Record

FORMAT = 1
SUFFIX = ".zygote"

_MOST = 32 * 1024 * 1024
"""Bytes that a record has at most; with ten thousand tasks it has a tenth of that."""


class RecordError(Error):
    """The file cannot be read as a zygote's record."""

    code = "zygote-record"


class ZygoteRecord(Record):
    """``id``: the zygote's random id. ``release``: its real path; ``number``: the revision's, as
    the master that started it counted. ``app``: the configuration it was started with, as a map.
    ``version``: of the worker protocol. ``python``: its interpreter's path. ``forks``, ``tasks``,
    ``taskd``: as in the manifest. ``name``: the release's name.
    """

    id: bytes
    pid: int
    start: int
    boot: str
    release: str
    number: int
    app: dict[str, Any]
    fingerprint: str
    version: int
    taskd: str
    python: str
    forks: bool
    tasks: dict[str, Any]
    name: str

    @property
    def owner(self) -> Identity:
        return Identity(self.pid, self.start, self.boot)


def file_name(zygote: bytes) -> str:
    return zygote.hex() + SUFFIX


def write(directory: str, record: ZygoteRecord) -> int:
    """Write the record. Returns its descriptor, which has the lock: it must stay open as long as
    the process lives. Raises OSError."""
    path = os.path.join(directory, file_name(record.id))
    temporary = path + ".new"
    os.makedirs(directory, 0o700, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(temporary, flags, 0o600)
    with files.named_when_whole(fd, temporary, path):
        locks.take(fd)
        rest = memoryview(cbor2.dumps({"format": FORMAT} | record._asdict()))
        while rest:
            rest = rest[os.write(fd, rest) :]
        os.fsync(fd)
    return fd


def read(path: str) -> tuple[ZygoteRecord, bool]:
    """The record, and whether its zygote is alive. Raises RecordError, OSError."""
    fd = files.open_own(path, os.O_RDONLY)
    with os.fdopen(fd, "rb") as file:
        try:
            record = fields.read(ZygoteRecord, cbor.loads(file.read(_MOST)))
        except ProtocolError as error:
            raise RecordError(f"{path} is not a zygote's record: {error}") from error
        alive = locks.holder(fd) is not None or not process.is_gone(record.owner)
    return record, alive


def remove(directory: str, zygote: bytes) -> None:
    """Remove a zygote's record, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(directory, file_name(zygote)))

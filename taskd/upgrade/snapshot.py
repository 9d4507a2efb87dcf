"""The snapshot: the master's live state in a sealed memory file, handed over an exec.

Format, version 1: ``MAGIC`` (8 bytes), u32 length and u32 crc32 of the CBOR part, the CBOR part
(one map without tags), then the carried bytes of all connections, raw. Where the CBOR part says
``[offset, length]`` for carried bytes, it counts from the end of the CBOR part. Decoding is part
of the pause, so the snapshot holds live state only: everything at rest is in the store.

A writer stamps the lowest version that has all the fields it writes; readers take their own version
and the one before; unknown fields are ignored.

The map, version 1 (as written since taskd 0.2.0). A class that crosses says beside its fields which
of them do (``export``), and makes itself from them (``restored``); the rest is gathered in
``handoff.dump`` and laid out in ``handoff.load``:

    version          1
    pid              of the master
    config           the new configuration's table, checked anew
    config_source    the file it came from
    config_before    the table of the configuration before, for the way back
    places           [state, runtime, logs]: ``paths.Places``
    ledger           [[descriptor, kind, name], …]: ``master.loop.ledger``
    revisions        [{…}, …]: ``master.fleet.revision``, with its zygote
    workers          [{…}, …]: ``master.fleet.worker``, with its attempt, if it has one
    orphans          [{…}, …]: ``master.fleet.running``; attempts whose worker is not known
    strangers        [{fd, channel}, …]: connections of worker.sock that have not said hello
    clients          [{…, streams}, …]: ``master.clients.client``, ``master.clients.streams``
    deploy           {…}: ``master.deploy.deploy``
    wishes           [signal number, …]: caught, and not yet acted on
    not_ours         [pid, …]: children that the process had before it was a master
    given            [name, …]: listening sockets that systemd holds
    note             what happened last, for ``status``
    after_drain      the path of the release before, if that hook is due; else None
    rejected         [[revision, path, reason, at], …]: ``revision.rejected``

A channel is [[offset, length] of its unread bytes, [offset, length] of its unsent ones], or None.
A new field: write it in ``export``, read it in ``restored`` with what it is for a snapshot that
lacks it (``fields.get``), and let tests/skew go over it with the version before, both ways.
"""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from typing import Any

import cbor2

from taskd.errors import ProtocolError
from taskd.posix import spawn
from taskd.protocol import cbor

VERSION = 1
READABLE = (1,)
MAGIC = b"taskdSN1"
_HEAD = struct.Struct(">8sII")
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


_DAMAGED = "the snapshot of the master before this one is damaged"


class Carried:
    """Collects the raw bytes (``parts``) that lie behind the CBOR part."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self._length = 0

    def put(self, data: bytes) -> list[int]:
        """Where these bytes will be: [offset, length]."""
        place = [self._length, len(data)]
        self.parts.append(data)
        self._length += len(data)
        return place


class Snapshot:
    """A decoded snapshot: ``fields`` and the bytes that its places point to."""

    def __init__(self, fields: dict[str, Any], carried: bytes) -> None:
        self.fields = fields
        self._carried = carried

    def get(self, place: list[int]) -> bytes:
        """The bytes at ``place``. Raises ProtocolError if they are not all there."""
        offset, length = place
        found = self._carried[offset : offset + length]
        if len(found) != length:
            raise ProtocolError(_DAMAGED)
        return found


def encode(fields: dict[str, Any], carried: Carried) -> bytes:
    body = cbor2.dumps({"version": VERSION} | fields)
    return b"".join([_HEAD.pack(MAGIC, len(body), zlib.crc32(body)), body, *carried.parts])


def decode(raw: bytes) -> Snapshot:
    """Raises ProtocolError if it is not whole or of a version that this code cannot read."""
    if len(raw) < _HEAD.size:
        raise ProtocolError(_DAMAGED)
    magic, length, crc = _HEAD.unpack_from(raw)
    body = raw[_HEAD.size : _HEAD.size + length]
    if magic != MAGIC or len(body) != length or zlib.crc32(body) != crc:
        raise ProtocolError(_DAMAGED)
    try:
        fields = cbor.loads(body, 2 * cbor.DEPTH)  # holds maps that came in frames
        version = fields["version"]
    except (ProtocolError, TypeError, KeyError) as error:
        raise ProtocolError(f"the snapshot cannot be read: {error}") from error
    if version not in READABLE:
        raise ProtocolError(f"the snapshot has version {version}; this taskd reads {READABLE}")
    return Snapshot(fields, raw[_HEAD.size + length :])


def seal(raw: bytes) -> int:
    """A sealed memory file with ``raw``; returns its descriptor (close-on-exec)."""
    fd = spawn.memory_file("taskd-snapshot", raw)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    return fd


def read(fd: int) -> Snapshot:
    """Read and decode the snapshot in ``fd``, whatever its offset. Raises as ``decode``."""
    size = os.fstat(fd).st_size
    parts, offset = [], 0
    while offset < size:
        part = os.pread(fd, size - offset, offset)
        parts.append(part)
        offset += len(part)
    return decode(b"".join(parts))

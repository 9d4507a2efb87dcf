"""The slot file, format 1: its bytes, and the errors that reading and writing it may raise.

Pure: bytes in, bytes out. Used by the worker that writes its slot and by the master and probe
workers, which read slots. A slot belongs to one worker for its whole life; it outlives the worker
and the master, and a taskd of another version may read it. All numbers are big-endian
and unsigned, all maps are plain CBOR without tags.

Header block: bytes 0 to 4095, written once
    0     8 bytes   "taskslot"
    8     u16       format version: 1
    10    u32       length of the map
    14    map       {"worker": 16 random bytes, the slot's id; "pid", "start" (clock ticks since
                    boot), "boot" (boot id): the process that owns it; "revision": its name;
                    "zygote": the id of its zygote; "mark": by which the worker's descendants are
                    found (``posix.mark``); the last two may be missing}
    ...             zeros
    4092  u32       CRC-32 of bytes 0 to 4091
    The first ten bytes and the checksum stay where they are in every later version, so that a
    newer slot is told from a broken one.

Records: from byte 4096 on, one right behind the other
    0     u32       length of the body, at most 32 MiB
    4     u32       CRC-32 of: the slot's id, the record's offset in the file (u64), the length
                    (u32), the body
    8     body      CBOR: a definite-length array of kind (0 to 23) and fields (a definite-length
                    map with text keys). A body therefore begins with 0x82, the kind as one byte,
                    and a byte from 0xa0 to 0xbb.
    Kinds are those of ``protocol.saved.Kind``. Because the checksum covers the id and the offset,
    no bytes that users save can be taken for a record, not even a copy of a real one; and because
    the id is random, nor can bytes of another slot that the disk still has.

PAD  {"fill": bytes of 0xff}. Stands where the next record must begin at a multiple of 4096.
    0xff and not zero, so that it is never taken for a hole.
    {"fill": empty, "synced": u}: a mark, before the first record after a sync: when it was
    written, every byte before offset ``synced`` was on disk.

SNAPSHOT  {"saved": bytes, "begin": map, "saves": u, "progress": map or null}, always at a multiple
    of 4096. It replaces everything before it: ``begin`` holds the fields of the attempt's BEGIN
    record, ``saves`` how many saving records stood since then, ``progress`` the last PROGRESS
    record's fields. Once it is on disk, everything between the header block and it may be a hole,
    or become one at any moment, in part too.

Reading
    A record that is not whole (cut off, or a wrong checksum) ends the slot:

    * zeros in it, and a whole SNAPSHOT somewhere behind: a hole, perhaps half made; reading goes
      on at the first such snapshot, which replaces all that was before it.
    * a whole record somewhere behind, at any byte: damage. The slot must not be trusted.
    * zeros at byte 4096, other bytes behind, no whole SNAPSHOT: damage too, for a snapshot is on
      disk before anything is given back for it.
    * the file has all the bytes of its length, or its checksum is right for the bytes up to the
      file's end: damage, since a process that is killed in a write leaves the beginning of it.
    * otherwise: a torn tail (a write cut short by a crash, or zeros). The slot ends before it.

    A power cut may leave any of the pages that were not synced, in any order, which looks like
    damage. If the slot was written before the machine's last start, and no mark behind the broken
    record says that its place had been synced, then the broken record is a torn tail too.

    Writers truncate a torn tail before they write again, so there is never anything behind one.
"""

from __future__ import annotations

import struct
from typing import Any
from zlib import crc32

import cbor2

from taskd.errors import Error, ProtocolError
from taskd.posix.process import Identity
from taskd.protocol import cbor, fields
from taskd.protocol.saved import Kind
from taskd.record import Record

VERSION = 1
MAGIC = b"taskslot"
BLOCK = 4096
"""Size of the header block, and what snapshots are aligned to (bytes)."""

BODY_LIMIT = 32 * 1024 * 1024
"""Bytes in one record's body at most: a snapshot of 16 MiB of saved state fits with room."""

LIMIT = 256 * 1024 * 1024
"""Bytes of records in one slot at most, the hole before the last snapshot not counted."""

SUFFIX = ".slot"
"""Ends a slot's file name."""

NEW = ".new"
"""Ends the name of a slot under construction, which means nothing."""

LOAD, PLAN = ".load", ".plan"
"""End the names of files for that worker: large arguments (``load`` of ``run`` in
``protocol.worker``), and the questions of a deploy's plan (``plan``)."""

_START = struct.Struct(">8sHI")
FRAME = struct.Struct(">II")
"""What a record begins with: its body's length and the checksum."""

_PLACE = struct.Struct(">QI")
_CRC = struct.Struct(">I")
FRAME_SIZE = FRAME.size
BODY_START = b"\x82[\x00-\x17][\xa0-\xbb]"
"""A regular expression: how every body begins."""

_PAD_FIXED = b"\x82" + bytes([Kind.PAD]) + b"\xa1\x64fill\x59"  # then u16 and that many bytes
_PAD_SIZE = FRAME_SIZE + len(_PAD_FIXED) + 2  # of the smallest pad record


class SlotError(Error):
    """Something about one slot."""

    code = "slot"


class SlotDamaged(SlotError):
    """The bytes are not what a writer wrote; the text says where and what was found."""

    code = "slot-damaged"


class SlotFromFuture(SlotError):
    """Written by a newer taskd in a format that this one does not know."""

    code = "slot-from-future"


class SlotFull(SlotError):
    """There is no room on the disk (or in the quota) now; the slot is whole, try again later."""

    code = "slot-full"


class SlotTooLarge(SlotError):
    """The record or the slot would pass a limit; trying again does not help."""

    code = "slot-too-large"


class SlotLost(SlotError):
    """Other code closed the writer's descriptor, and the file cannot be opened again."""

    code = "slot-lost"


class Header(Record):
    """A slot's header: its id (the worker's), the process that owns it, the code that runs."""

    worker: bytes
    pid: int
    start: int
    boot: str
    revision: str
    zygote: bytes = b""
    mark: int = 0

    @property
    def owner(self) -> Identity:
        """The process that writes this slot."""
        return Identity(self.pid, self.start, self.boot)


class SlotRecord(Record):
    """One record: where it begins, its kind (``protocol.saved.Kind``), its fields."""

    offset: int
    kind: int
    fields: dict[str, Any]


def file_name(worker: bytes, suffix: str = SUFFIX) -> str:
    """The name of that worker's slot in the slot directory, or of a file beside it: NEW, LOAD,
    PLAN."""
    return worker.hex() + suffix


def encode_header(header: Header) -> bytes:
    """The header block. Raises SlotTooLarge if the revision's name does not fit."""
    missing = Header._field_defaults.items()
    fields = cbor2.dumps({k: v for k, v in header._asdict().items() if (k, v) not in missing})
    room = BLOCK - _START.size - _CRC.size
    if len(fields) > room:
        raise SlotTooLarge(
            f"the revision's name ({len(header.revision)} characters) does not fit into a slot's "
            f"header of {BLOCK} bytes: give the release directory a shorter name"
        )
    block = _START.pack(MAGIC, VERSION, len(fields)) + fields.ljust(room, b"\0")
    return block + _CRC.pack(crc32(block))


def decode_header(block: bytes) -> Header:
    """The header in a slot's first 4096 bytes. Raises SlotDamaged or SlotFromFuture."""
    if len(block) < BLOCK or not block.startswith(MAGIC):
        raise SlotDamaged(
            f"not a slot: its first {BLOCK} bytes are no header (found {len(block)} bytes "
            f"that begin with {block[:8]!r})"
        )
    _, version, length = _START.unpack_from(block)
    if crc32(block[: -_CRC.size]) != _CRC.unpack(block[-_CRC.size :])[0]:
        raise SlotDamaged("the slot's header has a wrong checksum (bytes 0 to 4095)")
    if version > VERSION:
        raise SlotFromFuture(
            f"the slot is in format {version}, and this taskd knows up to {VERSION}: it was "
            "written by a newer taskd, and only that or a later one can read it"
        )
    try:
        return fields.read(Header, cbor.loads(block[_START.size : _START.size + length]))
    except ProtocolError as error:
        raise SlotDamaged(f"the slot's header is not whole: {error}") from None


def encode_body(kind: int, fields: dict[str, Any]) -> bytes:
    """A record's body. Raises SlotTooLarge past BODY_LIMIT."""
    body = cbor2.dumps([int(kind), fields])
    if len(body) > BODY_LIMIT:
        raise SlotTooLarge(
            f"a record of {len(body)} bytes passes the limit of {BODY_LIMIT}: "
            "keep large data in files under ctx.scratch"
        )
    return body


def decode_body(offset: int, body: bytes) -> SlotRecord:
    """The record of a body that stood at ``offset`` with a right checksum. Raises SlotDamaged."""
    try:
        kind, fields = cbor.loads(body)
    except ProtocolError as error:
        raise SlotDamaged(f"the record at byte {offset} cannot be read: {error}") from None
    except (TypeError, ValueError):
        kind, fields = None, None
    if not isinstance(kind, int) or not isinstance(fields, dict):
        raise SlotDamaged(f"the record at byte {offset} is no kind with its fields")
    return SlotRecord(offset, kind, fields)


def seed(worker: bytes) -> int:
    """The checksum over a slot's id, which every record's checksum begins with."""
    return crc32(worker)


def checksum(seed: int, offset: int, body: bytes) -> int:
    """The checksum of a record with that body at that offset."""
    return crc32(body, crc32(_PLACE.pack(offset, len(body)), seed))


def frame(seed: int, offset: int, body: bytes) -> bytes:
    """The whole record, to be written at exactly that offset."""
    return FRAME.pack(len(body), checksum(seed, offset, body)) + body


def pad(seed: int, offset: int) -> bytes:
    """A PAD record at ``offset`` that ends at a multiple of BLOCK; nothing if one is there."""
    gap = -offset % BLOCK
    if gap == 0:
        return b""
    if gap < _PAD_SIZE:
        gap += BLOCK
    count = gap - _PAD_SIZE
    return frame(seed, offset, _PAD_FIXED + count.to_bytes(2, "big") + b"\xff" * count)


def mark(seed: int, offset: int, synced: int) -> bytes:
    """A PAD record at ``offset`` which says that all before offset ``synced`` is on disk."""
    return frame(seed, offset, encode_body(Kind.PAD, {"fill": b"", "synced": synced}))

"""What a slot holds, read from its file. Runs in the master, mostly on the slots of the dead.

The rules of reading are in ``slot.layout``. Reading changes nothing and needs no lock: of a slot
whose owner is writing (or punching, or truncating) it sees the records that are whole at that
moment. It reads pieces at given offsets and does not use the descriptor's position (which the
search for a hole's end may move). Only what an attempt needs is decoded: the bodies of records
before the last BEGIN or SNAPSHOT are checked and dropped.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import Any

from taskd.posix import files
from taskd.protocol.saved import Kind
from taskd.record import Record
from taskd.slot import layout
from taskd.slot.layout import BLOCK, FRAME_SIZE, Header, SlotDamaged, SlotError, SlotRecord

_PIECE = 1024 * 1024
_HOLE_UNIT = 512  # no file system makes holes at a finer grain
_ZEROS = bytes(_HOLE_UNIT)
_LOOKS = 100  # reads of a slot that its owner changes meanwhile
_SEARCH_LIMIT = 512 * 1024 * 1024  # bytes to checksum in one search for whole records


class Content(Record):
    """What one attempt left in its slot.

    ``begin``: fields of the last BEGIN, or None: no attempt began. ``snapshot``: ``saved`` of the
    last SNAPSHOT after it. ``records``: what was saved after that, in order (STEP, LOOP,
    CHECKPOINT; whatever kinds a newer task API may add). ``progress``: fields of the last
    PROGRESS. ``end``: fields of END, ``end_offset`` its offset. ``saves``: how many records saved
    something since BEGIN; with 0 the attempt made no progress. ``size``: where the last whole
    record ends (bytes). ``torn``: a write was cut short behind it, which is harmless.
    ``damage``: where the file is damaged and what was found there, or None; the other fields then
    tell of the part before it. ``was_synced``: the damaged place had been synced, so that a power
    cut cannot be the cause.
    """

    header: Header
    begin: dict[str, Any] | None
    snapshot: bytes | None
    records: list[SlotRecord]
    progress: dict[str, Any] | None
    end: dict[str, Any] | None
    end_offset: int | None
    saves: int
    size: int
    torn: bool
    damage: str | None
    was_synced: bool


_NO_FILE = frozenset({errno.ELOOP, errno.EISDIR, errno.EINVAL, errno.ENXIO})
"""What opening a link, a directory, a pipe or a socket gives."""


def open_slot(path: str, flags: int = os.O_RDONLY) -> int:
    """A descriptor of the slot at ``path``. Raises FileNotFoundError, also if no regular file is
    there (a task may have put a pipe there, on which an open would wait); OSError for a transient
    error."""
    try:
        return files.open_own(path, flags)
    except OSError as error:
        if error.errno in _NO_FILE:
            raise FileNotFoundError(errno.ENOENT, "no slot there", path) from error
        raise


def read_header(fd: int) -> Header:
    """Who owns the slot. Raises SlotDamaged or SlotFromFuture."""
    return layout.decode_header(os.pread(fd, BLOCK, 0))


def mark_of(fd: int) -> int:
    """The mark by which its owner's descendants are found (``posix.mark``); 0 if it has none.

    Raises OSError where it cannot be read now: there may be a mark.
    """
    try:
        return read_header(fd).mark
    except SlotError:
        return 0


def read(fd: int) -> Content:
    """All that the slot's last attempt left.

    A broken record does not raise; ``damage`` tells of it. Raises SlotDamaged if the header is
    broken or a record with a right checksum is not what the format allows, SlotFromFuture if the
    slot is of a newer format.
    """
    header = read_header(fd)
    for _ in range(_LOOKS):
        walk = _Walk(_Slot(fd, header))
        walk.run()
        if walk.clean or os.fstat(fd).st_size == walk.slot.size:
            break  # else the owner wrote, and gave back what was still to be read: read again
    return walk.content()


def read_record(fd: int, offset: int, header: Header) -> SlotRecord:
    """The record at ``offset``. Raises SlotDamaged if no whole record stands there."""
    body = _Slot(fd, header).body(offset)
    if body is None:
        raise SlotDamaged(f"no whole record at byte {offset} of {header.worker.hex()}")
    return layout.decode_body(offset, body)


class _Slot:
    """The file in pieces, and whether a whole record stands at an offset."""

    __slots__ = ("_base", "_piece", "fd", "header", "seed", "size")

    def __init__(self, fd: int, header: Header) -> None:
        self.fd = fd
        self.header = header
        self.seed = layout.seed(header.worker)
        self.size = os.fstat(fd).st_size
        self._base = 0  # where _piece begins in the file
        self._piece = b""

    def look(self, offset: int, length: int) -> bytes:
        """That range, shorter where the file ends."""
        start = offset - self._base
        if start < 0 or start + length > len(self._piece):
            self._base, start = offset, 0
            self._piece = os.pread(self.fd, max(length, _PIECE), offset)
        return self._piece[start : start + length]

    def body(self, offset: int) -> bytes | None:
        """The body of the whole record at ``offset``, or None."""
        length, crc = self.announced(offset)
        body = self.look(offset + FRAME_SIZE, length)
        if not length or len(body) < length:
            return None
        return body if crc == layout.checksum(self.seed, offset, body) else None

    def announced(self, offset: int) -> tuple[int, int]:
        """The length and checksum of the body, as the record at ``offset`` gives them; length 0 if
        the file cannot hold it.
        """
        head = self.look(offset, FRAME_SIZE)
        if len(head) == FRAME_SIZE:
            length, crc = layout.FRAME.unpack(head)
            if 3 <= length <= min(layout.BODY_LIMIT, self.size - offset - FRAME_SIZE):
                return length, crc
        return 0, 0

    def data_from(self, offset: int) -> int:
        """The first offset from here on that may hold other bytes than zeros."""
        try:
            return os.lseek(self.fd, offset, os.SEEK_DATA)
        except OSError:  # nothing but hole up to the end
            return self.size


class _Walk:
    """Goes from record to record and keeps those of the last attempt."""

    __slots__ = ("_damage", "_last", "_offset", "_since", "_snapshot", "slot")

    def __init__(self, slot: _Slot) -> None:
        self.slot = slot
        self._offset = BLOCK
        self._damage: str | None = None
        self._snapshot: SlotRecord | None = None
        self._start_over()

    def _start_over(self) -> None:
        """Drop what was gathered: a BEGIN or a SNAPSHOT replaces it."""
        self._last: dict[int, tuple[int, bytes]] = {}  # of BEGIN, PROGRESS and END, by kind
        self._since: list[tuple[int, bytes]] = []

    def run(self) -> None:
        while self._damage is None:
            body = self.slot.body(self._offset)
            if body is not None:
                self._take(body)
                continue
            snapshot = _snapshot_behind(self.slot, self._offset)
            if snapshot is None or not _has_zeros(self.slot, self._offset, snapshot):
                self._damage = _damage(self.slot, self._offset)
                return
            self._offset = snapshot  # the broken record is in a hole, or is one

    @property
    def clean(self) -> bool:
        """Whether the file ends with a whole record."""
        return self._damage is None and self._offset == self.slot.size

    def _take(self, body: bytes) -> None:
        offset, kind = self._offset, body[1]
        if kind == Kind.BEGIN:
            self._start_over()
            self._snapshot = None
            self._last[kind] = offset, body
        elif kind == Kind.SNAPSHOT:
            self._start_over()
            self._snapshot = record = layout.decode_body(offset, body)
            fields = [record.fields.get(name) for name in ("saved", "begin", "saves", "progress")]
            kinds = [*map(type, fields)]
            if kinds[:3] != [bytes, dict, int] or kinds[3] not in (dict, type(None)):
                raise SlotDamaged(
                    f"the snapshot at byte {offset} lacks a field, or has a wrong one"
                )
        elif kind in (Kind.PROGRESS, Kind.END):
            self._last[kind] = offset, body
        elif kind != Kind.PAD:
            self._since.append((offset, body))
        self._offset = offset + FRAME_SIZE + len(body)

    def content(self) -> Content:
        before: dict[str, Any] = {} if self._snapshot is None else self._snapshot.fields
        records = [layout.decode_body(*place) for place in self._since]
        last = {kind: layout.decode_body(*place) for kind, place in self._last.items()}
        begin, progress, end = map(last.get, (Kind.BEGIN, Kind.PROGRESS, Kind.END))
        return Content(
            header=self.slot.header,
            begin=begin.fields if begin else before.get("begin") or None,
            snapshot=before.get("saved"),
            records=records,
            progress=progress.fields if progress else before.get("progress"),
            end=None if end is None else end.fields,
            end_offset=None if end is None else end.offset,
            saves=before.get("saves", 0) + len(records),
            size=self._offset,
            torn=self._damage is None and not self.clean,
            damage=self._damage,
            was_synced=self._damage is not None and _was_synced(self.slot, self._offset),
        )


def _snapshot_behind(slot: _Slot, offset: int) -> int | None:
    """Where the first whole SNAPSHOT behind ``offset`` begins; they stand at block boundaries."""
    at = (offset // BLOCK + 1) * BLOCK
    while at < slot.size:
        head = slot.look(at, FRAME_SIZE + 2)
        if head[FRAME_SIZE:] == bytes([0x82, Kind.SNAPSHOT]) and slot.body(at) is not None:
            return at
        at += BLOCK
        if not any(head):  # perhaps a hole, which may be far larger than memory
            at = max(at, slot.data_from(at) // BLOCK * BLOCK)
    return None


def _has_zeros(slot: _Slot, start: int, stop: int) -> bool:
    """Whether the record that begins at ``start``, or something up to ``stop``, was punched out."""
    if not any(slot.look(start, FRAME_SIZE)):
        return True
    first = -(-start // _HOLE_UNIT) * _HOLE_UNIT
    return any(slot.look(at, _HOLE_UNIT) == _ZEROS for at in range(first, stop, _HOLE_UNIT))


def _damage(slot: _Slot, offset: int) -> str | None:
    """None if a torn tail stands at ``offset``, else what is wrong there."""
    found = _lost_snapshot(slot, offset) or _last_one(slot, offset)
    for place, body in _records_behind(slot, offset):
        found = (
            f"so much that looks like records follows that byte {place} was the last try"
            if body is None
            else f"a whole one stands behind it at byte {place}"
        )
        break
    if found is None:
        return None
    return (
        f"the record at byte {offset} of slot {slot.header.worker.hex()} is broken (it begins "
        f"{slot.look(offset, 16).hex(' ')}), and {found}: this is not a write cut short, but "
        "damage to the file"
    )


def _lost_snapshot(slot: _Slot, offset: int) -> str | None:
    """For a slot that begins with zeros and has other bytes behind them: its beginning was given
    back, and the snapshot, which was on disk before that, is broken. All that was saved is lost.
    """
    if offset != BLOCK or any(slot.look(BLOCK, FRAME_SIZE)):
        return None
    at = slot.data_from(BLOCK)
    while at < slot.size:
        piece = slot.look(at, _PIECE)
        if piece.strip(b"\0"):
            return (
                "what was before a snapshot was given back, but no whole snapshot stands behind it"
            )
        at += max(1, len(piece))
    return None


def _last_one(slot: _Slot, offset: int) -> str | None:
    """For a last record that is there in full: a write cut short leaves only its beginning."""
    head = slot.look(offset, FRAME_SIZE)
    rest = slot.size - offset - FRAME_SIZE
    if len(head) < FRAME_SIZE or not 3 <= rest <= layout.BODY_LIMIT:
        return None
    length, crc = layout.FRAME.unpack(head)
    if 3 <= length <= rest:
        return "all of its bytes are there"
    if crc == layout.checksum(slot.seed, offset, slot.look(offset + FRAME_SIZE, rest)):
        return "only its length is wrong"
    return None


def _was_synced(slot: _Slot, offset: int) -> bool:
    """Whether a mark behind ``offset`` says that it had been synced; also True where the search for
    a mark was given up."""
    for place, body in _records_behind(slot, offset):
        if body is None:
            return True
        is_pad = body[1] == Kind.PAD
        if is_pad and layout.decode_body(place, body).fields.get("synced", 0) > offset:
            return True
    return False


def _records_behind(slot: _Slot, offset: int) -> Iterator[tuple[int, bytes | None]]:
    """The whole records behind ``offset``, tried at every byte: where each stands, and its body. A
    checksum covers the record's place, so that only real records count. The search is bounded: a
    tail of nothing but likely beginnings (user data made to look so) is taken for damage, and its
    body is None."""
    import re  # only for a slot that does not end with a whole record

    beginning = re.compile(layout.BODY_START, re.DOTALL)
    budget = _SEARCH_LIMIT
    at = offset + 1 + FRAME_SIZE  # of the body
    while at < slot.size:
        piece = slot.look(at, _PIECE)
        for match in beginning.finditer(piece):
            place = at + match.start() - FRAME_SIZE
            if (body := slot.body(place)) is not None:
                yield place, body
            budget -= slot.announced(place)[0]
            if budget < 0:
                yield place, None
                return
        at += max(1, len(piece) - 2)  # the pattern is three bytes long

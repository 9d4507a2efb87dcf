"""What a slot holds, read from its file. Runs in the master, mostly on the slots of the dead.

The rules of reading are in ``slot.layout``. Reading changes nothing and needs no lock: it may look
at a slot whose owner is writing (or punching, or truncating) and then sees what was whole when it
looked. It reads by pieces at stated offsets; the descriptor's own position means nothing to
anybody (looking for a hole's end may move it). Only what an attempt needs is decoded: the bodies
of records before the last BEGIN or SNAPSHOT are checked and forgotten.
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
_LOOKS = 100  # at a slot that changes under our eyes
_SEARCH_LIMIT = 512 * 1024 * 1024  # bytes to checksum in one search for whole records


class Content(Record):
    """What one attempt left in its slot.

    ``begin``: fields of the last BEGIN, or None: no attempt began. ``snapshot``: ``saved`` of the
    last SNAPSHOT after it. ``records``: what was saved after that, in order (STEP, LOOP,
    CHECKPOINT; whatever kinds a newer task API may add). ``progress``: fields of the last
    PROGRESS. ``end``: fields of END, ``end_offset`` its offset. ``saves``: how many records saved
    something since BEGIN; 0 means that the attempt got nowhere. ``size``: where the last whole
    record ends (bytes). ``torn``: a write was cut short behind it, which is harmless.
    ``damage``: not None if whole records stand behind a broken one: where, and what was found;
    everything else then tells of the part before it. ``was_synced``: what is broken had been on
    disk, so that it cannot be what a power cut leaves of writes that were not.
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
    """A descriptor of the slot at ``path``. Raises FileNotFoundError also for what is no file (a
    task may have put a pipe there, to have whoever opens it wait), OSError for what passes."""
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
    """What its owner's descendants are told by (``posix.mark``); 0 if the slot does not say.

    Raises OSError: that it cannot be read just now does not mean that there is none.
    """
    try:
        return read_header(fd).mark
    except SlotError:
        return 0


def read(fd: int) -> Content:
    """Everything the slot's last attempt left.

    A broken record does not raise, it is told in ``damage``. Raises SlotDamaged if the header is
    broken or a record with a right checksum is not what the format allows, SlotFromFuture if the
    slot is of a newer format.
    """
    header = read_header(fd)
    for _ in range(_LOOKS):
        walk = _Walk(_Slot(fd, header))
        walk.run()
        if walk.clean or not walk.slot.has_changed():
            break  # else the owner wrote, and gave back what was still to be read: look again
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
        """What a record at ``offset`` says are its body's length and checksum; length 0 if it
        cannot be true.
        """
        head = self.look(offset, FRAME_SIZE)
        if len(head) == FRAME_SIZE:
            length, crc = layout.split_frame(head)
            if 3 <= length <= min(layout.BODY_LIMIT, self.size - offset - FRAME_SIZE):
                return length, crc
        return 0, 0

    def has_changed(self) -> bool:
        """Whether the file has grown or shrunk since this was made."""
        return os.fstat(self.fd).st_size != self.size

    def is_zero_from(self, offset: int) -> bool:
        """Whether nothing but zeros follows."""
        at = self.data_from(offset)
        while at < self.size:
            piece = self.look(at, _PIECE)
            if piece.strip(b"\0"):
                return False
            at += max(1, len(piece))
        return True

    def data_from(self, offset: int) -> int:
        """The first offset from here on that may hold other bytes than zeros."""
        try:
            return os.lseek(self.fd, offset, os.SEEK_DATA)
        except OSError:  # nothing but hole up to the end
            return self.size


class _Walk:
    """From record to record, keeping what counts for the last attempt."""

    __slots__ = (
        "_begin",
        "_damage",
        "_end",
        "_offset",
        "_progress",
        "_since",
        "_snapshot",
        "slot",
    )

    def __init__(self, slot: _Slot) -> None:
        self.slot = slot
        self._offset = BLOCK
        self._damage: str | None = None
        self._snapshot: SlotRecord | None = None
        self._start_over()

    def _start_over(self) -> None:
        """A BEGIN or a SNAPSHOT: what was gathered before it is past."""
        self._begin: tuple[int, bytes] | None = None
        self._progress: tuple[int, bytes] | None = None
        self._end: tuple[int, bytes] | None = None
        self._since: list[tuple[int, bytes]] = []

    def run(self) -> None:
        while self._damage is None:
            body = self.slot.body(self._offset)
            if body is not None:
                self._take(body)
            elif not self._pass_hole():
                self._damage = _damage(self.slot, self._offset)
                return

    @property
    def clean(self) -> bool:
        """Whether the file ends with a whole record."""
        return self._damage is None and self._offset == self.slot.size

    def _take(self, body: bytes) -> None:
        offset, kind = self._offset, body[1]
        if kind == Kind.BEGIN:
            self._start_over()
            self._snapshot = None
            self._begin = offset, body
        elif kind == Kind.SNAPSHOT:
            self._start_over()
            self._snapshot = _snapshot(layout.decode_body(offset, body))
        elif kind == Kind.PROGRESS:
            self._progress = offset, body
        elif kind == Kind.END:
            self._end = offset, body
        elif kind != Kind.PAD:
            self._since.append((offset, body))
        self._offset = offset + FRAME_SIZE + len(body)

    def _pass_hole(self) -> bool:
        """If the broken record here is (part of) a hole: go on at the snapshot behind it."""
        snapshot = _snapshot_behind(self.slot, self._offset)
        if snapshot is None or not _has_zeros(self.slot, self._offset, snapshot):
            return False
        self._offset = snapshot
        return True

    def content(self) -> Content:
        snapshot = self._snapshot
        before: dict[str, Any] = {} if snapshot is None else snapshot.fields
        records = [layout.decode_body(*place) for place in self._since]
        end = None if self._end is None else layout.decode_body(*self._end)
        return Content(
            header=self.slot.header,
            begin=_fields(self._begin, before.get("begin") or None),
            snapshot=before.get("saved"),
            records=records,
            progress=_fields(self._progress, before.get("progress")),
            end=None if end is None else end.fields,
            end_offset=None if end is None else end.offset,
            saves=before.get("saves", 0) + len(records),
            size=self._offset,
            torn=self._damage is None and not self.clean,
            damage=self._damage,
            was_synced=self._damage is not None and _was_synced(self.slot, self._offset),
        )


def _fields(place: tuple[int, bytes] | None, default: dict[str, Any] | None) -> Any:
    return default if place is None else layout.decode_body(*place).fields


def _snapshot(record: SlotRecord) -> SlotRecord:
    """Raises SlotDamaged if it is not what a SNAPSHOT holds: everything before it is past."""
    fields = record.fields
    kinds = [type(fields.get(name)) for name in ("saved", "begin", "saves", "progress")]
    if kinds[:3] != [bytes, dict, int] or kinds[3] not in (dict, type(None)):
        raise SlotDamaged(f"the snapshot at byte {record.offset} lacks a field, or has a wrong one")
    return record


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
    """None if what stands at ``offset`` is a torn tail, else what is wrong there."""
    found = _record_behind(slot, offset) or _lost_snapshot(slot, offset) or _last_one(slot, offset)
    if found is None:
        return None
    return (
        f"the record at byte {offset} of slot {slot.header.worker.hex()} is broken (it begins "
        f"{slot.look(offset, 16).hex(' ')}), and {found}: this is not a write cut short, but "
        "damage to the file"
    )


def _lost_snapshot(slot: _Slot, offset: int) -> str | None:
    """A slot that begins with zeros and goes on with something: its beginning was given back, and
    the snapshot, which was on disk before that, is broken. Without it nothing is left to go on.
    """
    if offset != BLOCK or any(slot.look(BLOCK, FRAME_SIZE)) or slot.is_zero_from(BLOCK):
        return None
    return "what was before a snapshot was given back, but no whole snapshot stands behind it"


def _last_one(slot: _Slot, offset: int) -> str | None:
    """A last record that is there in full: a write cut short leaves its beginning alone."""
    head = slot.look(offset, FRAME_SIZE)
    rest = slot.size - offset - FRAME_SIZE
    if len(head) < FRAME_SIZE or not 3 <= rest <= layout.BODY_LIMIT:
        return None
    length, crc = layout.split_frame(head)
    if 3 <= length <= rest:
        return "all of its bytes are there"
    if crc == layout.checksum(slot.seed, offset, slot.look(offset + FRAME_SIZE, rest)):
        return "only its length is wrong"
    return None


def _was_synced(slot: _Slot, offset: int) -> bool:
    """Whether a mark behind ``offset`` says that it had been synced; or there is too much there to
    tell."""
    for _, body in _records_behind(slot, offset):
        if body is None:
            return True
        if body[1] == Kind.PAD and layout.decode_map(body[2:]).get("synced", 0) > offset:
            return True
    return False


def _record_behind(slot: _Slot, offset: int) -> str | None:
    """Look for a whole record at every byte behind ``offset``; its checksum covers its place, so
    that only a real one counts."""
    for place, body in _records_behind(slot, offset):
        if body is None:
            return f"so much that looks like records follows that byte {place} was the last try"
        return f"a whole one stands behind it at byte {place}"
    return None


def _records_behind(slot: _Slot, offset: int) -> Iterator[tuple[int, bytes | None]]:
    """Where whole records stand behind ``offset``, and their bodies. Bounded: a tail made of
    nothing but likely beginnings (user data made to look so) is taken for damage rather than
    searched for ever: None is its body."""
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

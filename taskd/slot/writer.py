"""The owner's side of a slot: appends records and keeps the file whole. Runs in the worker.

The format is in ``slot.layout``. Only BEGIN, PROGRESS, END, SNAPSHOT and PAD mean anything here;
the other records are the task API's. One record costs one ``write`` and needs no other process.

Invariants:
* The process that creates the writer is the only one that writes, from one thread at a time
  (``sync`` may come from another). Once it has the lock, it never duplicates nor closes the
  descriptor, for that would drop it (see ``posix.locks``). The descriptor is close-on-exec, and
  record locks do not pass to forked children.
* User code may close the descriptor, and its number may then be that of another file: each use
  checks that it is still the slot, and otherwise opens and locks the slot again.
* Between any two calls the file ends with a whole record. A write that came out short is truncated
  back before anything else happens.
* A record other than END is written only while END_ROOM bytes stay allocated behind it, so that an
  attempt's end can be written when the disk is full. There is no such promise where the file system
  cannot reserve, nor once RLIMIT_FSIZE is lowered below what was reserved.
* Every write gives its offset: the descriptor's own position is not used.

After a power cut a slot may hold what it held before its last ``reset``, since only ``sync`` and
``durable`` reach the disk: its readers compare BEGIN's task and attempt with the claim.
"""

from __future__ import annotations

import contextlib
import os
import resource
from typing import Any, NoReturn

from taskd.posix import files, locks, native
from taskd.posix.process import Identity
from taskd.protocol.saved import Kind
from taskd.slot import layout
from taskd.slot.layout import (
    BLOCK,
    LIMIT,
    SlotFull as SlotFull,
    SlotLost as SlotLost,
    SlotTooLarge as SlotTooLarge,
)

END_ROOM = 4096
"""Bytes kept allocated behind every record, for END."""

CHUNK = 64 * 1024
"""Bytes allocated ahead at a time, so that most records need no allocation of their own."""

SNAPSHOT_AFTER = 1024 * 1024
"""A snapshot is wanted after this many bytes of records at the earliest …"""

SNAPSHOT_FACTOR = 4
"""… and after this many times the size of the last one: it adds a quarter to all writing."""

_SAVES = frozenset({Kind.STEP, Kind.LOOP, Kind.CHECKPOINT})


class SlotWriter:
    """One slot, held for the worker's whole life. Make it with ``create``.

    ``fd``: the one descriptor. ``name``: the file's name in its directory.
    """

    __slots__ = (
        "_ask_at",
        "_begin",
        "_directory",
        "_end",
        "_epoch",
        "_file",
        "_floor",
        "_marked",
        "_progress",
        "_punches",
        "_reopening",
        "_room",
        "_saves",
        "_seed",
        "_synced",
        "_unsure",
        "fd",
        "name",
    )

    def __init__(self, fd: int, directory: str, worker: bytes) -> None:
        self.fd = fd
        self.name = layout.file_name(worker)
        self._directory = directory
        self._seed = layout.seed(worker)
        self._file = files.identity(fd)
        self._reopening = native.allocate_lock()
        self._punches = True  # until the file system says that it cannot
        self._start_over()

    def _start_over(self) -> None:
        self._end = BLOCK  # where the next record goes; everything before is whole
        self._floor = BLOCK  # everything from the header block to here was given back
        self._room = BLOCK  # allocated up to here
        self._unsure = False  # bytes of a record that is not whole may stand behind _end
        self._epoch = object()  # another one after each reset
        self._synced = self._epoch, BLOCK  # in that epoch, everything before is on disk …
        self._marked = BLOCK  # … and the last mark says so of everything before this
        self._ask_at = BLOCK + SNAPSHOT_AFTER
        self._begin: dict[str, Any] = {}
        self._saves = 0
        self._progress: dict[str, Any] | None = None

    @classmethod
    def create(
        cls,
        directory: str,
        worker: bytes,
        who: Identity,
        revision: str,
        zygote: bytes = b"",
        mark: int = 0,
    ) -> SlotWriter:
        """A new, empty slot, locked and in place under its name, also after a power cut.

        ``worker``: the worker's random id, which is the slot's. ``who``: this process. ``zygote``:
        the id of its zygote. ``mark``: see ``posix.mark``. Raises SlotFull if there
        is no room, FileExistsError if a slot of that id is there.
        """
        header = layout.Header(worker, who.pid, who.start, who.boot, revision, zygote, mark)
        path, temporary = (
            os.path.join(directory, layout.file_name(worker, suffix))
            for suffix in (layout.SUFFIX, layout.NEW)
        )
        if os.path.lexists(path):
            raise FileExistsError(f"a slot of this id exists already: {path}")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = files.out_of_the_way(os.open(temporary, flags, 0o600))
        with files.named_when_whole(fd, temporary, path):
            slot = cls(fd, directory, worker)
            block = layout.encode_header(header)
            locks.take(fd)
            try:
                files.reserve(fd, 0, BLOCK + END_ROOM)
                if os.pwrite(fd, block, 0) < BLOCK:
                    raise SlotFull("no room for a slot: its header was written in part only")
                os.fdatasync(fd)
            except OSError as error:
                slot._tell(error)
            slot._make_room(0, END_ROOM)
        return slot

    def append(self, kind: int, fields: dict[str, Any], durable: bool = False) -> int:
        """Write one record and return its offset. ``durable``: it survives a power cut on return.

        Raises SlotFull if there is no room now: nothing was written, the same call may succeed
        later. Raises SlotTooLarge if the record or the slot would pass its limit.
        """
        body = layout.encode_body(kind, fields)
        mark, marked = self._mark()
        self._check_limit(len(mark) + layout.FRAME_SIZE + len(body))
        self._make_room(len(mark) + layout.FRAME_SIZE + len(body), END_ROOM)
        offset = self._put(body, mark)
        self._marked = marked
        if kind in _SAVES:
            self._saves += 1
        elif kind == Kind.PROGRESS:
            self._progress = dict(fields)
        elif kind == Kind.BEGIN:
            self._begin, self._saves, self._progress = dict(fields), 0, None
        if durable:
            self.sync()
        return offset

    def append_end(self, fields: dict[str, Any]) -> int:
        """Write the END record and return its offset.

        On a full disk it uses the END_ROOM bytes that are kept for it. Raises SlotFull only for a
        record that is larger.
        """
        body = layout.encode_body(Kind.END, fields)
        mark, _ = self._mark()
        try:
            self._make_room(len(mark) + layout.FRAME_SIZE + len(body), END_ROOM)
            return self._put(body, mark)
        except SlotFull:
            if layout.FRAME_SIZE + len(body) > END_ROOM:
                raise
        return self._put(body)  # without the mark: the bytes kept are for END alone

    def sync(self) -> None:
        """Make everything appended so far survive a power cut. Raises SlotFull, OSError."""
        synced = self._epoch, self._end
        try:
            os.fdatasync(self._own())
        except OSError as error:
            self._tell(error)
        self._synced = synced  # in one step: the other thread may have reset the slot meanwhile

    @property
    def wants_snapshot(self) -> bool:
        """Whether enough was appended that ``snapshot`` pays for itself by giving space back."""
        return self._punches and self._end >= self._ask_at

    def snapshot(self, saved: bytes) -> int:
        """Write the full state, sync it, then give back the space of everything before it.

        ``saved``: ``Saved.encode``'s bytes. Returns the record's offset. Raises as ``append``,
        and then asks again only after another SNAPSHOT_AFTER bytes.
        """
        self._ask_at = self._end + SNAPSHOT_AFTER
        pad = layout.pad(self._seed, self._end)
        body = layout.encode_body(
            Kind.SNAPSHOT,
            {
                "saved": saved,
                "begin": self._begin,
                "saves": self._saves,
                "progress": self._progress,
            },
        )
        length = len(pad) + layout.FRAME_SIZE + len(body)
        self._check_limit(length)
        self._make_room(length, END_ROOM)
        offset = self._put(body, pad)
        self.sync()  # before the first byte that it replaces goes
        try:
            self._punches = files.punch(self._own(), self._floor, offset - self._floor)
        except OSError:
            pass  # the data is safe all the same; the next snapshot tries again
        else:
            if self._punches:
                self._floor = offset
        self._ask_at = self._end + max(SNAPSHOT_AFTER, SNAPSHOT_FACTOR * len(saved))
        return offset

    def reset(self) -> None:
        """Empty the slot for the next attempt.

        Only after the master has said that the attempt's end is recorded: this forgets it.
        """
        os.ftruncate(self._own(), BLOCK)
        self._start_over()
        with contextlib.suppress(SlotFull):  # truncating freed the room: the next append asks
            self._make_room(0, END_ROOM)

    def remove(self) -> None:
        """Take the slot's name away; the lock stays until the process ends. May be repeated."""
        path = os.path.join(self._directory, self.name)
        with contextlib.suppress(FileNotFoundError):
            if files.is_at(path, self._file):
                os.unlink(path)
        files.sync_directory(self._directory)

    def _check_limit(self, length: int) -> None:
        if self._end + length - self._floor > LIMIT:
            raise SlotTooLarge(
                f"the slot {self.name} would pass {LIMIT} bytes, which is the limit: what is no "
                "longer needed is given back only on a file system that can punch holes (ext4, "
                "XFS, Btrfs, tmpfs); put the state directory on one, or save less often"
            )

    def _make_room(self, length: int, behind: int) -> None:
        """Have ``length`` bytes, and ``behind`` more, allocated behind the last record."""
        needed = self._end + length + behind
        if needed <= self._room:
            return
        ahead = needed + CHUNK
        limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)  # allocating alone ignores it
        if limit != resource.RLIM_INFINITY:
            ahead = min(ahead, limit)
        if needed > ahead:
            raise SlotFull(f"no room in the slot: RLIMIT_FSIZE of this process is {limit} bytes")
        try:
            files.reserve(self._own(), self._end, ahead - self._end)
        except OSError as error:
            if error.errno not in files.DISK_FULL:
                self._tell(error)
            ahead = needed  # without CHUNK, but with all that is promised
            try:
                files.reserve(self.fd, self._end, ahead - self._end)
            except OSError as error:
                self._tell(error)
        self._room = ahead

    def _mark(self) -> tuple[bytes, int]:
        """The mark to write before the next record, and the offset up to which it says that the
        slot is synced. No bytes if the last mark already says so."""
        epoch, synced = self._synced
        if epoch is not self._epoch or synced <= self._marked:
            return b"", self._marked
        return layout.mark(self._seed, self._end, synced), synced

    def _put(self, body: bytes, before: bytes = b"") -> int:
        """Write ``before`` (a mark, or a pad) and the record of ``body``; the record's offset."""
        if self._unsure:
            self._truncate_back()
        offset = self._end + len(before)
        record = before + layout.frame(self._seed, offset, body)
        self._unsure = True  # also if an exception comes between the next two lines
        try:
            written = os.pwrite(self._own(), record, self._end)
        except OSError as error:
            self._truncate_back()
            self._tell(error)
        if written < len(record):
            self._truncate_back()
            raise SlotFull(f"no room in the slot: {written} of {len(record)} bytes were written")
        self._end += written
        self._unsure = False
        return offset

    def _truncate_back(self) -> None:
        """End the file with its last whole record again, and get back the room this frees."""
        fd = self._own()
        if os.fstat(fd).st_size > self._end:
            try:
                os.ftruncate(fd, self._end)
            except OSError as error:
                self._tell(error)
            self._room = self._end
        self._unsure = False
        with contextlib.suppress(SlotFull):
            self._make_room(0, END_ROOM)

    def _own(self) -> int:
        """The descriptor, which is the slot's. Raises SlotLost."""
        try:
            if files.identity(self.fd) == self._file:
                return self.fd
        except OSError:
            pass  # closed
        return self._reopen()

    def _reopen(self) -> int:
        """Open the slot again: user code closed ``fd``, whose number may be another file's, so that
        it is not closed here. The lock went with that close; meanwhile the slot had an owner all
        the same, since this process is alive (see ``slot.owner``)."""
        path = os.path.join(self._directory, self.name)
        with self._reopening:  # the control thread syncs
            try:
                fd = files.open_own(path, os.O_RDWR)
            except OSError as error:
                raise SlotLost(f"{_CLOSED}, and it cannot be opened again: {error}") from error
            fd = files.out_of_the_way(fd)
            if files.identity(fd) != self._file:
                native.close(fd)
                raise SlotLost(f"{_CLOSED}, and {path} is another file by now")
            locks.take(fd)
            self.fd = fd
            return fd

    def _tell(self, error: OSError) -> NoReturn:
        """Raise SlotFull in place of a transient error: a full disk or quota, a file system mounted
        read-only. Raise other errors as they are."""
        if error.errno in files.DISK_FULL:
            what = (
                f"no room in the slot: {os.strerror(error.errno)}; make room in {self._directory}"
            )
        elif error.errno in files.READ_ONLY:
            what = f"the slot cannot be written: {os.strerror(error.errno)}: {self._directory}"
        else:
            raise error
        raise SlotFull(what) from error


_CLOSED = "this worker's slot was closed by code that runs in it"

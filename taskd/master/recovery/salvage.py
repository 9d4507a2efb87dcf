"""What a dead worker left: its slot is read, and says what became of its attempt.

The worker's death is proven and its tree gone before anything here is called. Nothing that can be
read is lost: records are added up onto what the store has; a damaged slot is set aside, and its
task held with what stood before the damage.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from taskd import log
from taskd.errors import Error, StoreError
from taskd.master.fleet.oom import OomWatch
from taskd.master.fleet.running import Running
from taskd.master.loop.trouble import PASSING
from taskd.model.endings import Facts, death_in_words
from taskd.posix import files, process
from taskd.protocol.rawsaved import RawSaved
from taskd.protocol.records import PROGRESS_PARTS
from taskd.slot import kept
from taskd.slot import layout as slot_layout
from taskd.slot import reader as slot_reader

if TYPE_CHECKING:
    from taskd.master.fleet.worker import Worker
    from taskd.master.master import Master

_SECTOR = 512  # the unit of st_blocks, stat(2)
_SURE = 128 * 1024
"""Bytes of a slot that has saved something for sure, and need not be read to find out."""


class Salvage:
    """Reads the slots of the dead, and of the living for a deploy's plan."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self.oom = OomWatch()

    def on_death(self, worker: Worker, status: int | None) -> None:
        """The worker is dead and its tree gone: what its slot says is what counts."""
        path = os.path.join(self._master.places.slots, f"{worker.id.hex()}.slot")
        death = death_in_words(status)
        known = self._master.groups.explain(worker.id, death, worker.limits)
        death = known or self.oom.explain(death, status)
        running = worker.running
        if running is None or running.attempt == 0 or worker.slot_fd < 0:
            if running is None:
                _unlink(path)
            return  # a claim on its way finds the worker dead; its slot stays, as a sign that
            # nothing was begun: one that is gone is one that was lost (see ``recovery``)
        self._master.attempts.disown(running.task)
        self.end_from_slot(
            running,
            worker.slot_fd,
            path,
            death,
            worker.asked_to_leave,
        )

    def drop_slot(self, worker: Worker) -> None:
        """It is dead, and what its slot was a sign of is recorded. What stands under its name and
        is another's stays, and one that cannot be read or removed is left to a sweep."""
        path = os.path.join(self._master.places.slots, f"{worker.id.hex()}.slot")
        with contextlib.suppress(Error, OSError):
            fd = slot_reader.open_slot(path)
            try:
                if slot_reader.read_header(fd).worker == worker.id:
                    _unlink(path, files.identity(fd))
            finally:
                os.close(fd)

    def end_from_slot(
        self, running: Running, slot_fd: int, path: str, death: str, asked: str | None
    ) -> None:
        """Settle an attempt whose process is dead by what stands in its slot.

        ``asked``: why we ended it, if we did. The slot at ``path`` is removed once that is
        committed; one that is damaged is set aside, and nothing that can be read of it is lost.
        What cannot be read just now says nothing about the slot: it is tried again.
        """
        try:
            self._end_from_slot(running, slot_fd, path, death, asked)
        except PASSING as error:
            log.error("cannot read what it left", task=running.task, why=str(error))
            self._master.attempts.try_later(
                running, lambda: self._again(running, path, death, asked), error
            )

    def _again(self, running: Running, path: str, death: str, asked: str | None) -> None:
        """From the file: its descriptor may be closed by now. Raises what passes."""
        try:
            fd = slot_reader.open_slot(path)
        except FileNotFoundError:
            why = f"its slot {path} could not be read, and then it was gone"
            self._master.attempts.settle(running, Facts("held", False, reason=why), lambda _: None)
            return
        try:
            self._end_from_slot(running, fd, path, death, asked)
        finally:
            os.close(fd)

    def _end_from_slot(
        self, running: Running, slot_fd: int, path: str, death: str, asked: str | None
    ) -> None:
        file = files.identity(slot_fd)
        done = lambda _: _unlink(path, file)  # noqa: E731
        try:
            content = kept.read(slot_fd)
        except Error as error:
            self._hold_damaged(running, None, path, file, f"its slot cannot be read: {error}")
            return
        if slot_layout.file_name(content.header.worker) != os.path.basename(path):
            self.hold_lost(running, f"its slot {path} is another worker's")
            return
        if (progress := content.progress) is not None:
            running.progress = {part: progress[part] for part in PROGRESS_PARTS}
        if content.damage is not None and not _is_cut_short(content):
            what = f"its slot is damaged: {content.damage}"
            self._hold_damaged(running, content, path, file, what)
        elif not _is_of(running, content):
            why = asked or "its worker was gone before it began"
            self._master.attempts.settle(running, Facts("unbegun", False, reason=why), done)
        elif content.end is not None:
            state = content.snapshot if content.end.get("snapshot") is not None else None
            self._master.attempts.end_by_record(running, None, content.end, state, done)
        else:
            self._end_of_a_crash(running, content, death, asked, path, file)

    def hold_lost(self, running: Running, what: str) -> None:
        """Held: what the attempt has saved is nowhere to be found, and must not be done again
        unseen."""
        reason = (
            f"{what}: what it saved in this attempt is not known. `taskctl retry` lets it go on "
            "from what was saved before that"
        )
        self._master.attempts.settle(running, Facts("held", False, reason=reason), lambda _: None)

    def _hold_damaged(
        self,
        running: Running,
        content: slot_reader.Content | None,
        path: str,
        file: tuple[int, int],
        what: str,
    ) -> None:
        """Held, with what stands before the damage, and with the slot kept to be looked at."""
        aside = os.path.join(os.path.dirname(path), f"{running.task}-{running.attempt}.damaged")
        state = None
        if content is not None and content.saves and _is_of(running, content):
            try:
                state = self._add_up(running.task, content)
            except StoreError:
                raise  # of the store, not of the slot: that passes
            except (Error, KeyError, TypeError) as error:
                what = f"{what}; nor can what stands before it be added up: {error}"
        _name_as_well(path, file, aside)
        facts = Facts("held", state is not None, reason=f"{what}. It is kept as {aside}")
        self._master.attempts.settle(
            running,
            facts,
            lambda _: _set_aside(path, file, aside),
            None,
            None if state is None else state.encode(),
            None if state is None else state.version,
        )

    def _end_of_a_crash(
        self,
        running: Running,
        content: slot_reader.Content,
        death: str,
        asked: str | None,
        path: str,
        file: tuple[int, int],
    ) -> None:
        done = lambda _: _unlink(path, file)  # noqa: E731
        facts = Facts(None, content.saves > 0, asked=asked, death=death)
        if not facts.progressed:
            self._master.attempts.settle(running, facts, done)
            return
        try:
            state = self._add_up(running.task, content)
        except StoreError:
            raise
        except (Error, KeyError, TypeError) as error:
            what = f"what it saved cannot be added up: {error}"
            self._hold_damaged(running, None, path, file, what)
            return
        self._master.attempts.settle(running, facts, done, None, state.encode(), state.version)

    def _add_up(self, task: int, content: slot_reader.Content) -> RawSaved:
        """What the store had, and every record that the attempt has added."""
        return kept.add_up(content, None if content.snapshot else self._master.reader.saved(task))

    def saved_at(self, running: Running) -> float | None:
        """When a running task has saved something last (Unix seconds); None: never yet."""
        worker = self._master.attempts.worker_of(running.task)
        if worker is not None and worker.slot_fd >= 0:
            with contextlib.suppress(Error, OSError):
                file = os.fstat(worker.slot_fd)
                if file.st_blocks * _SECTOR > _SURE or self._has_saved(running, worker.slot_fd):
                    return file.st_mtime
        row = self._master.reader.task(running.task)
        return row.started if row is not None and row.saved_version is not None else None

    def _has_saved(self, running: Running, slot_fd: int) -> bool:
        content = kept.read(slot_fd)
        return content.saves > 0 and _is_of(running, content)


def _is_of(running: Running, content: slot_reader.Content) -> bool:
    return kept.is_of(content, running.task, running.attempt)


def _is_cut_short(content: slot_reader.Content) -> bool:
    """Whether what looks like damage is what a power cut may leave of writes not yet synced: then
    the slot ends before it, as it does before any torn tail."""
    return content.header.boot != process.boot_id() and not content.was_synced


def _name_as_well(path: str, file: tuple[int, int], aside: str) -> None:
    """Before it is recorded that it is kept there: should we die right after that, nobody would
    know any more that the slot is to be kept, and a sweep removes it under its own name."""
    with contextlib.suppress(OSError):  # no links on this file system: ``_set_aside`` moves it
        if files.is_at(path, file):
            os.link(path, aside)
            files.sync_directory(os.path.dirname(path))


def _set_aside(path: str, file: tuple[int, int], aside: str) -> None:
    with contextlib.suppress(OSError):
        if files.is_at(path, file):
            os.rename(path, aside)
            _unlink(path, file)  # renaming does nothing where both are names of one file
            files.sync_directory(os.path.dirname(path))


def _unlink(path: str, file: tuple[int, int] | None = None) -> None:
    """``file``: only if it is that one that the path still leads to. Where it cannot be removed (a
    directory that may not be written to just now), a later sweep does it."""
    with contextlib.suppress(OSError):
        if file is None or files.is_at(path, file):
            os.unlink(path)

"""Settles the attempt of a dead worker by what its slot says.

The caller has proven that the worker is dead and its process tree gone. Nothing that can be read is
lost: the slot's records are added up onto what the store has; a damaged slot is set aside, and its
task is held with the records before the damage.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable

from taskd import log
from taskd.errors import Error, StoreError
from taskd.master.attempts import Attempts, Ending, Endings, by_record
from taskd.master.fleet import Groups, OomWatch, Running, Worker, unlink
from taskd.master.loop import PASSING, Storage
from taskd.model.endings import Facts, death_in_words
from taskd.posix import files, process
from taskd.protocol.records import PROGRESS_PARTS
from taskd.protocol.saved import RawSaved
from taskd.record import Record
from taskd.slot import kept_state, layout, reader as slot_reader
from taskd.store.queries import Part, Stored, StoredData

_SECTOR = 512  # the unit of st_blocks, stat(2)
_SURE = 128 * 1024
"""A slot with more bytes than this holds saved state for sure, and need not be read."""


class Remains(Record):
    """An attempt whose process is dead: its slot at ``path``, how it died in words, and why the
    master ended it, if it did (``asked``)."""

    running: Running
    path: str
    death: str
    asked: str | None


class Salvage(Record):
    """Reads the slots of dead workers, and of living ones for the plan of a stop. ``slots``: the
    directory of the slots."""

    slots: str
    storage: Storage
    groups: Groups
    oom: OomWatch
    attempts: Attempts
    endings: Endings

    def on_death(self, worker: Worker, status: int | None) -> None:
        """The worker is dead and its tree gone: settle its attempt by its slot."""
        path = os.path.join(self.slots, layout.file_name(worker.id))
        death = death_in_words(status)
        death = self.groups.explain(worker.id, death, worker.limits) or self.oom.explain(
            death, status
        )
        running = worker.running
        self.attempts.unsent.pop(worker.id, None)
        if worker.id in self.attempts.offered:
            return  # the store may be giving it a task: its slot stays, as a sign that nothing was
            # begun, since one that is gone is one that was lost (see ``unowned``)
        if running is None:
            unlink(path)
            return
        if worker.slot_fd < 0:
            return
        self.attempts.disown(running.task)
        self.settle(Remains(running, path, death, worker.asked_to_leave), worker.slot_fd)

    def settle(self, remains: Remains, slot_fd: int) -> None:
        """Settle the attempt by what stands in its slot, which is open as ``slot_fd``.

        The slot is removed once that is committed; one that is damaged is set aside, and nothing
        that can be read of it is lost. A transient error says nothing about the slot: it is read
        again.
        """
        try:
            self._read(remains, slot_fd)
        except PASSING as error:
            self._later(remains, error)

    def _later(self, remains: Remains, error: BaseException) -> None:
        log.error("cannot read what it left", task=remains.running.task, why=str(error))
        self.endings.try_later(remains.running, lambda: self._again(remains), error)

    def _again(self, remains: Remains) -> None:
        """From the file: its descriptor may be closed by now. Raises a transient error."""
        try:
            fd = slot_reader.open_slot(remains.path)
        except FileNotFoundError:
            why = f"its slot {remains.path} could not be read, and then it was gone"
            self.endings.settle(Ending(remains.running, Facts("held", False, reason=why)))
            return
        try:
            self._read(remains, fd)
        finally:
            os.close(fd)

    def _read(self, remains: Remains, slot_fd: int) -> None:
        """Read the slot, and from the store what its records are added up onto, if it says so."""
        running, path, file = remains.running, remains.path, files.identity(slot_fd)
        try:
            content = kept_state.read(slot_fd)
        except Error as error:
            self._hold_damaged(remains, None, file, f"its slot cannot be read: {error}")
            return
        if layout.file_name(content.header.worker) != os.path.basename(path):
            self.hold_lost(running, f"its slot {path} is another worker's")
            return
        # How long it ran at least: until it wrote last. (A task may have written anything there.)
        written = os.fstat(slot_fd).st_mtime
        ran = max(0.0, written - (content.begin or {}).get("at", written))
        is_whole = content.end is not None and content.damage is None
        if is_whole or content.snapshot is not None or not content.saves:
            self._judge(remains, content, file, None, ran)
            return

        def found(answer: Part[Stored] | StoreError) -> None:
            if isinstance(answer, StoreError):
                self._later(remains, answer)
                return
            try:
                self._judge(remains, content, file, answer.found[0].saved, ran)
            except PASSING as error:
                self._later(remains, error)

        self.storage.ask(StoredData((running.task,)), found)

    def _judge(
        self,
        remains: Remains,
        content: slot_reader.Content,
        file: tuple[int, int],
        stored: bytes | None,
        ran: float,
    ) -> None:
        running, path = remains.running, remains.path
        done = lambda _: unlink(path, file)  # noqa: E731
        if (progress := content.progress) is not None:
            running.progress = {part: progress[part] for part in PROGRESS_PARTS}
        if running.begun is None and content.begin is not None:
            running.begun = time.monotonic() - ran  # nobody knows when it died
        if content.damage is not None and not _is_cut_short(content):
            what = f"its slot is damaged: {content.damage}"
            self._hold_damaged(remains, content, file, what, stored)
        elif not kept_state.is_of(content, running.task, running.attempt):
            why = remains.asked or "its worker was gone before it began"
            self.endings.settle(Ending(running, Facts("unbegun", False, reason=why), done))
        elif content.end is not None:
            state = content.snapshot if content.end.get("snapshot") is not None else None
            self.endings.settle(by_record(running, content.end, state, done))
        else:
            self._settle_crash(remains, content, file, stored)

    def hold_lost(self, running: Running, what: str) -> None:
        """Hold the task: what the attempt has saved is lost, and an operator must decide whether it
        is done again."""
        reason = (
            f"{what}: what it saved in this attempt is not known. `taskctl retry` lets it go on "
            "from what was saved before that"
        )
        self.endings.settle(Ending(running, Facts("held", False, reason=reason)))

    def _hold_damaged(
        self,
        remains: Remains,
        content: slot_reader.Content | None,
        file: tuple[int, int],
        what: str,
        stored: bytes | None = None,
    ) -> None:
        """Held, with what stands before the damage, and with the slot kept to be looked at."""
        running, path = remains.running, remains.path
        aside = os.path.join(os.path.dirname(path), f"{running.task}-{running.attempt}.damaged")
        task, attempt, state = running.task, running.attempt, None
        if content is not None and content.saves and kept_state.is_of(content, task, attempt):
            try:
                state = kept_state.add_up(content, stored)
            except (Error, KeyError, TypeError) as error:
                what = f"{what}; nor can what stands before it be added up: {error}"
        _name_as_well(path, file, aside)
        facts = Facts("held", state is not None, reason=f"{what}. It is kept as {aside}")
        self.endings.settle(
            _with_state(running, facts, lambda _: _set_aside(path, file, aside), state)
        )

    def _settle_crash(
        self,
        remains: Remains,
        content: slot_reader.Content,
        file: tuple[int, int],
        stored: bytes | None,
    ) -> None:
        """It died without an END."""
        running, state = remains.running, None
        facts = Facts(None, content.saves > 0, asked=remains.asked, death=remains.death)
        if facts.progressed:
            try:
                state = kept_state.add_up(content, stored)
            except (Error, KeyError, TypeError) as error:
                self._hold_damaged(
                    remains, None, file, f"what it saved cannot be added up: {error}"
                )
                return
        self.endings.settle(
            _with_state(running, facts, lambda _: unlink(remains.path, file), state)
        )

    def saved_at(self, running: Running) -> float | None:
        """When a running task has saved something last (Unix seconds); None: never yet."""
        worker = self.attempts.worker_of(running.task)
        if worker is not None and worker.slot_fd >= 0:
            with contextlib.suppress(Error, OSError):
                file = os.fstat(worker.slot_fd)
                if file.st_blocks * _SECTOR > _SURE:
                    return file.st_mtime
                content = kept_state.read(worker.slot_fd)
                if content.saves > 0 and kept_state.is_of(content, running.task, running.attempt):
                    return file.st_mtime
        return running.row.started if running.row.saved_version is not None else None


def _with_state(
    running: Running, facts: Facts, then: Callable[[str], None], state: RawSaved | None
) -> Ending:
    if state is None:
        return Ending(running, facts, then)
    return Ending(running, facts, then, state.encode(), state.version)


def _is_cut_short(content: slot_reader.Content) -> bool:
    """Whether what looks like damage is what a power cut may leave of writes not yet synced: then
    the slot ends before it, as it does before any torn tail."""
    return content.header.boot != process.boot_id() and not content.was_synced


def _name_as_well(path: str, file: tuple[int, int], aside: str) -> None:
    """Link the slot to the name ``aside`` before the end is recorded: if the master dies right
    after recording, the next sweep removes the slot under its own name."""
    with contextlib.suppress(OSError):  # no links on this file system: ``_set_aside`` moves it
        if files.is_at(path, file):
            os.link(path, aside)
            files.sync_directory(os.path.dirname(path))


def _set_aside(path: str, file: tuple[int, int], aside: str) -> None:
    with contextlib.suppress(OSError):
        if files.is_at(path, file):
            os.rename(path, aside)
            unlink(path, file)  # renaming does nothing where both are names of one file
            files.sync_directory(os.path.dirname(path))

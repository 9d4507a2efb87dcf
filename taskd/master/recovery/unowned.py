"""Settles tasks that are 'running' in the store and have no worker that the master knows.

Runs at a start, after ``survivors``, and every minute. The cases: attempts whose worker and zygote
are both dead, and workers whose zygote has left no record. A worker that lives finishes its task
and leaves END in its slot. No second copy of the task is started before the worker is proven dead
(its lock is free and its process gone) and over (its process tree is gone). Then the attempt is
settled by the slot. The master learns of deaths by pidfds, never by timeouts.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable

from taskd import log
from taskd.errors import Error, StoreError
from taskd.master.attempts import Attempts
from taskd.master.fleet import (
    Dead,
    Deaths,
    Groups,
    Intake,
    Orphans,
    Running,
    Workers,
    of_row,
    owner_of,
)
from taskd.master.loop import Later, Life, Loop, Storage
from taskd.master.recovery.salvage import Remains, Salvage
from taskd.posix import process
from taskd.posix.cleaners import Patience
from taskd.posix.process import Identity
from taskd.slot import layout, owner as slot_owner, reader as slot_reader
from taskd.store.api import Applied
from taskd.store.queries import Rows, RunningRows
from taskd.store.values import Row

SWEEP_EVERY = 60.0
"""Seconds between two looks for tasks that run without an owner."""


class Unowned:
    """``was_swept``: what the daemon before this one left was ended by its unit's stop."""

    def __init__(
        self,
        loop: Loop,
        life: Life,
        slots: str,
        storage: Storage,
        groups: Groups,
        orphans: Orphans,
        deaths: Deaths,
        intake: Intake,
        workers: Workers,
        attempts: Attempts,
        salvage: Salvage,
    ) -> None:
        """``slots``: the directory of the slots."""
        self._loop = loop
        self._life = life
        self._slots = slots
        self._storage = storage
        self._groups = groups
        self._orphans = orphans
        self._deaths = deaths
        self._intake = intake
        self._workers = workers
        self._attempts = attempts
        self._salvage = salvage
        self.was_swept = False
        self._ended: set[int] | None = None  # whose attempts have ended while a sweep asks

    # ── looking for them ─────────────────────────────────────────────────────────────────────

    def sweep(self, then: Callable[[], None] = lambda: None) -> None:
        """Hold every running row without a known worker until its owner is over, and remove the
        slots of no task and no worker; then call ``then``. Repeats every SWEEP_EVERY seconds."""
        try:
            files = self._unknown_files()
        except OSError as error:
            self._over_with_sweep(error, then)
            return
        self._ended = set()
        self._storage.gather(RunningRows(), lambda rows: self._swept(files, rows, then))

    def on_applied(self, outcome: Applied) -> None:
        """An attempt that ends while a sweep asks may be among what is answered."""
        if self._ended is not None and outcome.end is not None and outcome.task is not None:
            self._ended.add(outcome.task)

    def _swept(
        self, files: set[str], rows: list[Row] | StoreError, then: Callable[[], None]
    ) -> None:
        ended, self._ended = self._ended or set(), None
        failure: Exception | None = None
        try:
            if isinstance(rows, StoreError):
                raise rows
            owned = set()
            offered = {layout.file_name(worker) for worker in self._attempts.offered}
            for row in rows:
                slot, who = owner_of(row)
                owned.add(slot)
                is_known = row.id in self._attempts or slot in offered  # the answer is on its way
                if not is_known and row.id not in ended:
                    running = of_row(row)
                    self._attempts.hold(running, None)
                    log.info("found running", task=row.id, attempt=row.attempt, pid=who.pid)
                    self._watch_soon(running, slot, who)
            self._groups.sweep({worker.id for worker in self._workers})
            self._remove_strays(files - owned)
        except (StoreError, OSError) as error:
            failure = error
        self._over_with_sweep(failure, then)

    def _over_with_sweep(self, failure: Exception | None, then: Callable[[], None]) -> None:
        if failure is not None:
            log.error("cannot look for tasks without an owner", why=str(failure))
        self._loop.after(SWEEP_EVERY, self._sweep_again)
        then()

    def _sweep_again(self) -> None:
        if self._life.is_up:
            self.sweep()
        elif not self._life.is_stopping:
            self._loop.after(SWEEP_EVERY, self._sweep_again)

    def complete(self) -> None:
        """After an exec: attempts that 0.2 has handed over lack what the claim has answered. (Its
        store is SQLite, which answers within the call.) Raises StoreError, ProtocolError."""
        for running in self._attempts.all():
            if running.known is None:
                self._storage.ask(Rows((running.task,)), running.complete)

    def resume(self) -> None:
        """After an exec: go on watching the owners that the master before was watching."""
        for running in self._attempts.without_worker():
            self._watch_soon(running, *owner_of(running.row))
        self._loop.after(SWEEP_EVERY, self._sweep_again)

    def _watch_soon(self, running: Running, slot: str, who: Identity) -> None:
        """By the loop, which calls it again after a transient error."""
        self._loop.soon(lambda: self._watch(running, slot, who))

    # ── watching them ────────────────────────────────────────────────────────────────────────

    def _watch(self, running: Running, slot: str, who: Identity) -> None:
        """Settle it now if its owner is dead, else when it dies."""
        if self._is_dead(slot, who):
            self._end_when_over(running, slot, who)
        elif process.is_gone(who):  # its lock is held by a process that is not to be seen from here
            self._loop.again(lambda: self._watch(running, slot, who))
        else:
            self._orphans.watch(who, lambda: self._watch(running, slot, who))

    def _is_dead(self, slot: str, who: Identity) -> bool:
        """By lock and process where there is a slot; by the process alone where there is none."""
        try:
            fd = slot_reader.open_slot(os.path.join(self._slots, slot))
        except FileNotFoundError:
            return process.is_gone(who)
        try:
            header = slot_reader.read_header(fd)
            is_its_own = header.owner == who  # another's says nothing
            return slot_owner.is_dead(fd, header) if is_its_own else process.is_gone(who)
        except Error:  # a header that cannot be read: the process alone must do
            return process.is_gone(who)
        finally:
            os.close(fd)

    def _end_when_over(self, running: Running, slot: str, who: Identity) -> None:
        """The owner is dead; what it left behind is killed, and only then is its attempt over."""
        worker = bytes.fromhex(slot.removesuffix(layout.SUFFIX))
        if who.boot != process.boot_id():  # nothing of it lives
            self._over(running, slot, worker, "", "the machine was restarted")
            return
        asked = "the daemon was stopped before the task had left, and its process was ended"
        death = "its process died while the daemon was away"

        def over() -> None:
            self._over(running, slot, worker, death, asked if self.was_swept else None)

        dead = Dead(
            worker, who.pid, who.start, lambda: self._mark_of(slot), Patience(), had_master=False
        )
        self._deaths.once_over(dead, over)

    def _mark_of(self, slot: str) -> int:
        """What the worker's descendants are told by; 0 if its slot does not say. Raises OSError."""
        try:
            fd = slot_reader.open_slot(os.path.join(self._slots, slot))
        except FileNotFoundError:
            return 0
        try:
            return slot_reader.mark_of(fd)
        finally:
            os.close(fd)

    def _over(
        self, running: Running, slot: str, worker: bytes, death: str, asked: str | None
    ) -> None:
        death = self._groups.explain(worker, death, None) or death
        self._groups.forget(worker)
        self._settle(Remains(running, os.path.join(self._slots, slot), death, asked))

    def _settle(self, remains: Remains) -> None:
        try:
            fd = slot_reader.open_slot(remains.path)
        except FileNotFoundError:  # a worker that leaves before it begins anything leaves its slot
            self._salvage.hold_lost(remains.running, f"its slot {remains.path} is gone")
            return
        try:
            self._intake.admit(fd)
            self._salvage.settle(remains, fd)
        except Later as later:
            later.when(lambda: self._settle(remains))
        finally:
            os.close(fd)

    # ── files that belong to nothing ─────────────────────────────────────────────────────────

    def tidy(self, then: Callable[[], None]) -> None:
        """At the end of a stop: slots of workers that have died since the last sweep go, too; then
        ``then`` is called."""
        files: set[str] = set()
        with contextlib.suppress(OSError):  # else the next start does it
            files = self._unknown_files()

        def found(rows: list[Row] | StoreError) -> None:
            if not isinstance(rows, StoreError):
                with contextlib.suppress(OSError):
                    self._remove_strays(files - {owner_of(row)[0] for row in rows})
            then()

        self._storage.gather(RunningRows(), found)

    def _unknown_files(self) -> set[str]:
        """The files in the directory of the slots that belong to no worker that the master knows.
        What is made later belongs to one. Raises OSError."""
        known = self._known()
        return {name for name in os.listdir(self._slots) if name.partition(".")[0] not in known}

    def _known(self) -> set[str]:
        """The workers, and dead ones to which the store may be giving a task just now."""
        known = {worker.id.hex() for worker in self._workers}
        return known | {worker.hex() for worker in self._attempts.offered}

    def _remove_strays(self, files: set[str]) -> None:
        """These belong to no running task either. Raises OSError."""
        known = self._known()
        for name in files:
            if name.partition(".")[0] in known:  # it has come meanwhile
                continue
            path = os.path.join(self._slots, name)
            with contextlib.suppress(FileNotFoundError):  # its worker removes it just now
                if name.endswith(layout.SUFFIX):
                    _remove_if_dead(path)
                elif (
                    name.endswith((layout.LOAD, layout.PLAN, layout.NEW))
                    and time.time() - os.stat(path).st_mtime > SWEEP_EVERY
                ):  # a younger file may be about to be used
                    os.unlink(path)


def _remove_if_dead(path: str) -> None:
    """A slot whose worker had no task: of no use once the worker is dead."""
    fd = slot_reader.open_slot(path)
    try:
        if slot_owner.is_dead(fd, slot_reader.read_header(fd)):
            os.unlink(path)
    except Error as error:
        log.warning("a slot that cannot be read is left where it is", path=path, why=str(error))
    finally:
        os.close(fd)

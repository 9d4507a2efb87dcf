"""Finds the zygotes and workers that live on from a master that died, by their files.

Runs once, at a start, before worker.sock is read. Each zygote has a record and each worker a slot;
both are locked by their process. From these files the revisions and workers are made again as if
this master had started them, but without connections: zygotes and workers connect to the new master
by themselves and say hello. The revision of a zygote that died while no master ran is kept; its
zygote is started again if a task needs it.

A worker that does not fit (no record, a slot that cannot be read, another task) is left to
``unowned``, which goes by the process alone.
"""

from __future__ import annotations

import contextlib
import os
import time

import taskd
from taskd import log
from taskd.config import App, Config
from taskd.errors import Error
from taskd.master.attempts import Attempts
from taskd.master.fleet import (
    Groups,
    Parent,
    Revision,
    Revisions,
    Worker,
    Workers,
    Zygotes,
    of_row,
    owner_of,
)
from taskd.model.revision import RevisionState
from taskd.model.worker import WorkerState
from taskd.model.zygote import ZygoteState
from taskd.paths import Places
from taskd.posix import limits, process
from taskd.record import Record
from taskd.revision import record
from taskd.slot import layout, owner as slot_owner, reader as slot_reader
from taskd.store.values import Row


class _Found(Record):
    """A revision of before; ``lives``: its zygote does."""

    revision: Revision
    lives: bool


class Survivors(Record):
    config: Config
    places: Places
    groups: Groups
    revisions: Revisions
    workers: Workers
    zygotes: Zygotes
    attempts: Attempts

    def restore(self, rows: list[Row]) -> None:
        """Make revisions and workers anew; ``rows``: of all running tasks. Raises OSError."""
        found = self._read_records()
        for row in rows:
            self._restore_worker(row, found)
        for each in found.values():
            if each.lives:
                self.zygotes.watch(each.revision)

    def watch(self) -> None:
        """After an exec: descriptors for processes that are not the master's children are to be had
        anew."""
        for revision in self.revisions:
            if revision.zygote.is_foreign and revision.zygote.pid is not None:
                self.zygotes.watch(revision)
        for worker in self.workers:
            if worker.parent is Parent.INIT:
                self.workers.watch_orphan(worker)

    def serving(self, path: str) -> Revision | None:
        """The revision of before that a start of the release at ``path`` goes on with, if it is the
        same in all that is known of it: its zygote saves importing the app again."""
        for revision in reversed(list(self.revisions)):
            if (
                revision.path == path
                and revision.app.is_proved_as(self.config.app)
                and revision.zygote.pid is not None
                and revision.taskd == taskd.__version__
            ):
                return revision
        return None

    # ── revisions ────────────────────────────────────────────────────────────────────────────

    def _read_records(self) -> dict[bytes, _Found]:
        """By the zygote's id. A record that cannot be read is of no use and is removed. Raises
        OSError if the error is transient."""
        found: dict[bytes, _Found] = {}
        for name in sorted(os.listdir(self.places.zygotes)):
            path = os.path.join(self.places.zygotes, name)
            try:
                told, lives = record.read(path)
                found[told.id] = _Found(_revision(told, lives), lives)
            except (Error, TypeError, OSError) as error:
                if isinstance(error, OSError) and error.errno in limits.SHORT:
                    raise  # which says nothing about the record
                log.warning("a zygote's record is of no use", path=path, why=str(error))
                with contextlib.suppress(OSError):
                    os.unlink(path)
        number = 0
        for each in sorted(found.values(), key=lambda each: each.revision.number):
            # A record that came when the next master had begun to count has a number of that one's.
            number = each.revision.number = max(each.revision.number, number + 1)
            self.revisions.restore(each.revision)
        return found

    # ── workers ──────────────────────────────────────────────────────────────────────────────

    def _restore_worker(self, row: Row, found: dict[bytes, _Found]) -> None:
        """The worker of a running task, if it lives or its zygote will tell how it died."""
        name, who = owner_of(row)
        try:
            fd = slot_reader.open_slot(os.path.join(self.places.slots, name), os.O_RDWR)
        except OSError:
            return
        try:
            header = slot_reader.read_header(fd)
            zygote = found.get(header.zygote)
            fits = header.owner == who and who.boot == process.boot_id()
            is_dead = slot_owner.is_dead(fd, header)
        except (Error, OSError):
            os.close(fd)
            return
        if zygote is None or not fits or (is_dead and not zygote.lives):
            os.close(fd)
            return
        worker = Worker(bytes.fromhex(name.removesuffix(layout.SUFFIX)), zygote.revision)
        worker.state = WorkerState.RUNNING
        worker.pid, worker.start, worker.slot_fd = who.pid, who.start, fd
        self.workers.restore(worker)
        running = of_row(row)
        self.groups.regain(worker, self.config.limits_of(row.queue))
        if row.on_deploy is None and row.name in zygote.revision.tasks:
            running.on_deploy = zygote.revision.tasks[row.name]["on_deploy"]
        self.attempts.hold(running, worker)
        if row.cancel_wished:
            self.attempts.ask(row.id, "cancel", "cancelled while the daemon was away")
        log.info("found running", task=row.id, attempt=row.attempt, pid=who.pid)
        if not zygote.lives:
            self.workers.watch_orphan(worker)


def _revision(told: record.ZygoteRecord, lives: bool) -> Revision:
    """As it was, but that it drains: whether it is the current one is the start's to say."""
    app = {name: told.app[name] for name in App._fields if name in told.app}
    revision = Revision(told.release, told.number, App(**app), told.name)
    revision.state = RevisionState.DRAINING
    revision.draining_since = time.time()
    revision.fingerprint = told.fingerprint
    revision.taskd = told.taskd
    revision.forks = told.forks
    # Without its directory it can start no zygote and run nothing more than what runs.
    revision.tasks = told.tasks if lives or os.path.isdir(told.release) else {}
    zygote = revision.zygote
    zygote.id, zygote.version, zygote.python = told.id, told.version, told.python
    zygote.is_foreign = True
    if lives:
        zygote.pid, zygote.start = told.pid, told.start
        zygote.state = ZygoteState.LOST
    return revision

"""Who lives on from a master that died: its revisions and its workers, as the disk tells.

Runs once, at a start, before worker.sock is heard. Zygotes have left a record, workers their slot;
both hold locks. From these the revisions and workers are made anew, as if we had started them, only
without their connections: they are looking for us, and say who they are like any other. A zygote
that died while nobody looked leaves its revision, which is started again if something needs it.

Whatever does not fit (no record, a slot that cannot be read, a task that is not that worker's) is
left to ``recovery``, which goes by the process alone.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

import taskd
from taskd import log
from taskd.config import App
from taskd.errors import Error
from taskd.master.fleet.revision import Revision
from taskd.master.fleet.running import of_row, owner_of, rows
from taskd.master.fleet.worker import Worker
from taskd.master.loop.ledger import Kind
from taskd.model.revision import RevisionState
from taskd.model.worker import WorkerState
from taskd.posix import limits, process
from taskd.record import Record
from taskd.revision import record
from taskd.revision.record import ZygoteRecord
from taskd.slot import owner as slot_owner
from taskd.slot import reader as slot_reader

if TYPE_CHECKING:
    from taskd.master.master import Master
    from taskd.store.api import Row


class _Found(Record):
    """A revision of before; ``lives``: its zygote does."""

    revision: Revision
    lives: bool


def restore(master: Master) -> None:
    """Make revisions and workers anew. Raises StoreError."""
    found = _revisions(master)
    for row in rows(master.reader):
        _worker(master, row, found)
    for each in found.values():
        if each.lives:
            _watch_zygote(master, each.revision)


def _watch_zygote(master: Master, revision: Revision) -> None:
    assert revision.pid is not None
    who = process.Identity(revision.pid, revision.start, process.boot_id())

    def died() -> None:
        master.revisions.on_death(revision, None)
        master.stop.on_change()

    master.orphans.watch(who, died)


def watch(master: Master) -> None:
    """After an exec: the descriptors for processes that are not our children are to be had anew."""
    for revision in master.revisions:
        if revision.is_foreign and revision.pid is not None:
            _watch_zygote(master, revision)
    for worker in master.workers:
        if worker.is_orphan:
            master.workers.watch_orphan(worker)


def serving(master: Master, path: str) -> Revision | None:
    """The revision of before that a start of the release at ``path`` goes on with, if it is the
    same in all that is known of it: its zygote saves importing the app again."""
    wanted = master.config.app._replace(release="")
    for revision in reversed(list(master.revisions)):
        same = revision.path == path and revision.app._replace(release="") == wanted
        if same and revision.pid is not None and revision.taskd == taskd.__version__:
            return revision
    return None


# ── revisions ────────────────────────────────────────────────────────────────────────────────


def _revisions(master: Master) -> dict[bytes, _Found]:
    """By the zygote's id. What cannot be read helps nobody and is removed. Raises OSError if that
    is for want of something that passes."""
    found: dict[bytes, _Found] = {}
    for name in sorted(os.listdir(master.places.zygotes)):
        path = os.path.join(master.places.zygotes, name)
        try:
            told, lives = record.read(path)
            found[told.id] = _Found(_revision(told, lives), lives)
        except OSError as error:
            if error.errno in limits.SHORT:  # which says nothing about the record
                raise
            _drop(path, error)
        except (Error, TypeError) as error:
            _drop(path, error)
    number = 0
    for each in sorted(found.values(), key=lambda each: each.revision.number):
        # A record that came when the next master had begun to count has a number of that one's.
        number = each.revision.number = max(each.revision.number, number + 1)
        master.revisions.restore(each.revision)
    return found


def _drop(path: str, error: Exception) -> None:
    log.warning("a zygote's record is of no use", path=path, why=str(error))
    with contextlib.suppress(OSError):
        os.unlink(path)


def _revision(told: ZygoteRecord, lives: bool) -> Revision:
    """As it was, but that it drains: whether it is the current one is the start's to say."""
    app = {name: told.app[name] for name in App._fields if name in told.app}
    revision = Revision(told.release, told.number, App(**app), told.name)
    revision.state = RevisionState.DRAINING
    revision.draining_since = time.time()
    revision.zygote_id = told.id
    revision.fingerprint = told.fingerprint
    revision.version = told.version
    revision.taskd = told.taskd
    revision.python = told.python
    revision.forks = told.forks
    # Without its directory it can start no zygote and run nothing more than what runs.
    revision.tasks = told.tasks if lives or os.path.isdir(told.release) else {}
    revision.is_foreign = True
    if lives:
        revision.pid, revision.start = told.pid, told.start
    return revision


# ── workers ──────────────────────────────────────────────────────────────────────────────────


def _worker(master: Master, row: Row, found: dict[bytes, _Found]) -> None:
    """The worker of a running task, if it lives or its zygote will tell how it died."""
    name, who = owner_of(row)
    try:
        fd = slot_reader.open_slot(os.path.join(master.places.slots, name), os.O_RDWR)
    except OSError:
        return
    try:
        header = slot_reader.read_header(fd)
        zygote = found.get(header.zygote)
        fits = header.owner == who and who.boot == process.boot_id()
        dead = slot_owner.is_dead(fd, header)
    except (Error, OSError):
        os.close(fd)
        return
    if zygote is None or not fits or (dead and not zygote.lives):
        os.close(fd)
        return
    worker = Worker(bytes.fromhex(name.removesuffix(".slot")), zygote.revision)
    worker.state = WorkerState.RUNNING
    worker.pid, worker.start, worker.slot_fd = who.pid, who.start, fd
    master.ledger.add(fd, Kind.SLOT, worker.slot_name)
    master.workers.restore(worker)
    running = of_row(row)
    master.groups.regain(worker, master.config.limits_of(row.queue))
    if row.on_deploy is None and row.name in zygote.revision.tasks:
        running.on_deploy = zygote.revision.tasks[row.name]["on_deploy"]
    master.attempts.hold(running, worker)
    if row.cancel_wished:
        master.attempts.ask(row.id, "cancel", "cancelled while the daemon was away")
    log.info("found running", task=row.id, attempt=row.attempt, pid=who.pid)
    if not zygote.lives:
        master.workers.watch_orphan(worker)

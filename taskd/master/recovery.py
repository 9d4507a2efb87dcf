"""Tasks that are 'running' in the store without a live owner that we know: found and settled.

After a start: the workers of a master that died. One that lives finishes its task and leaves END
in its slot; no second copy is started before it is proven dead (its lock is free and its process
gone) and over (its tree is gone). Then its slot says what became of the attempt. Deaths are told
by pidfds; nothing is guessed from a clock.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import cbor2

from taskd import log
from taskd.errors import Error
from taskd.master.loop import READ
from taskd.master.running import Running
from taskd.model.endings import Facts
from taskd.posix import process, tree
from taskd.posix.process import Identity
from taskd.slot import owner as slot_owner
from taskd.slot import reader as slot_reader

if TYPE_CHECKING:
    from taskd.master.core import Master
    from taskd.store.api import Row

BATCH = 500
UNSEEN_AGAIN = 0.5
"""Seconds between two looks at an owner that cannot be watched."""

STRAGGLERS_AGAIN = 0.05
"""Seconds between two looks at a dead worker's session that is being killed."""


def sweep(master: Master) -> None:
    """At a start: every running row is held until its owner is over; stray slots are removed."""
    owned = {_recover(master, row) for row in _running(master)}
    for name in os.listdir(master.places.slots):
        if name not in owned:
            with contextlib.suppress(FileNotFoundError):  # its worker removes it just now
                _remove_stray(os.path.join(master.places.slots, name))


def resume(master: Master) -> None:
    """After an exec: go on watching the owners that the master before was watching."""
    for running in master.attempts.all():
        if master.attempts.worker_of(running.task) is None:
            row = master.reader.task(running.task)
            if row is not None and row.worker is not None:
                _watch(master, running, *_owner(row))


def _running(master: Master) -> list[Row]:
    found: list[Row] = []
    while True:
        rows = master.reader.running(found[-1].id if found else 0, BATCH)
        found += rows
        if len(rows) < BATCH:
            return found


def _owner(row: Row) -> tuple[str, Identity]:
    """The slot file's name and the process that was given the task."""
    assert row.worker is not None, f"task {row.id} is running without an owner"
    worker, pid, start, boot = cbor2.loads(row.worker)
    return f"{worker.hex()}.slot", Identity(pid, start, boot)


def _recover(master: Master, row: Row) -> str:
    slot, who = _owner(row)
    on_deploy = row.on_deploy.value if row.on_deploy else "finish"
    running = Running(row.id, row.queue, row.name, row.owner, on_deploy)
    running.attempt = row.attempt
    master.attempts.hold(running, None)
    log.info("found running", task=row.id, attempt=row.attempt, pid=who.pid)
    _watch(master, running, slot, who)
    return slot


def _watch(master: Master, running: Running, slot: str, who: Identity) -> None:
    """Settle it now if its owner is dead, else when it dies."""
    if _is_dead(master, slot, who):
        _end_when_over(master, running, slot, who)
        return
    try:
        fd = os.pidfd_open(who.pid)
    except OSError as error:
        # It died between the two looks; or its lock is held by a process that is not to be seen
        # from here (another pid namespace), or we are out of descriptors: look again.
        log.warning("cannot watch", task=running.task, pid=who.pid, why=error.strerror)
        master.loop.after(UNSEEN_AGAIN, lambda: _watch(master, running, slot, who))
        return

    def on_death(_: int) -> None:
        master.loop.watch(fd, 0, on_death)
        os.close(fd)
        _watch(master, running, slot, who)

    master.loop.watch(fd, READ, on_death)


def _is_dead(master: Master, slot: str, who: Identity) -> bool:
    """By lock and process where there is a slot; by the process alone where there is none."""
    try:
        fd = os.open(os.path.join(master.places.slots, slot), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return process.is_gone(who)
    try:
        return slot_owner.is_dead(fd, slot_reader.read_header(fd))
    except Error:  # a header that cannot be read: the process alone must do
        return process.is_gone(who)
    finally:
        os.close(fd)


def _end_when_over(master: Master, running: Running, slot: str, who: Identity) -> None:
    """The owner is dead; what it left behind is killed, and only then is its attempt over."""
    same_boot = who.boot == process.boot_id()
    reused = process.start_time(who.pid) not in (None, who.start)
    if same_boot and not reused and tree.kill_session(who.pid):
        again = STRAGGLERS_AGAIN
        master.loop.after(again, lambda: _end_when_over(master, running, slot, who))
        return
    death = "its process died while the daemon was away" if same_boot else ""
    _settle(master, running, slot, death, None if same_boot else "the machine was restarted")


def _settle(master: Master, running: Running, slot: str, death: str, asked: str | None) -> None:
    path = os.path.join(master.places.slots, slot)

    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        why = asked or "its worker was gone before it began"
        master.attempts.settle(running, Facts("unbegun", False, reason=why), lambda _: None)
        return
    try:
        master.salvage.end_from_slot(running, fd, path, death, asked)
    finally:
        os.close(fd)


def _remove_stray(path: str) -> None:
    """What a worker without a task left; arguments in files are for workers of the master before,
    and those drop a task that they have not begun."""
    if path.endswith(".slot"):
        _remove_if_dead(path)
    elif path.endswith(".load"):
        os.unlink(path)


def _remove_if_dead(path: str) -> None:
    """A slot whose worker had no task: of no use once the worker is dead."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if slot_owner.is_dead(fd, slot_reader.read_header(fd)):
            os.unlink(path)
    except Error as error:
        log.warning("a slot that cannot be read is left where it is", path=path, why=str(error))
    finally:
        os.close(fd)

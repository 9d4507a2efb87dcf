"""Tasks that are 'running' in the store without a live owner that we know: found and settled.

At a start, after ``survivors``, and every now and then: what is left are attempts whose worker and
zygote are both dead, and workers whose zygote has left no record. One that lives finishes its task
and leaves END in its slot; no second copy is started before it is proven dead (its lock is free and
its process gone) and over (its tree is gone). Then its slot says what became of the attempt. Deaths
are told by pidfds; nothing is guessed from a clock.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from typing import TYPE_CHECKING

from taskd import log
from taskd.errors import Error, StoreError
from taskd.master.fleet.running import Running, of_row, owner_of, rows
from taskd.master.loop.wire import Later
from taskd.posix import mark, process, tree
from taskd.posix.cleaners import Patience
from taskd.posix.process import Identity
from taskd.slot import owner as slot_owner
from taskd.slot import reader as slot_reader

if TYPE_CHECKING:
    from taskd.master.master import Master
    from taskd.store.api import Row

SWEEP_EVERY = 60.0
"""Seconds between two looks for tasks that run without an owner."""

LOCKED_AGAIN = 0.5
"""Seconds between two looks at a lock whose holder cannot be watched."""

STRAGGLERS_AGAIN = 0.05
"""Seconds between two looks at a dead worker's session that is being killed."""


def sweep(master: Master) -> None:
    """Every running row without a worker that we know is held until its owner is over; slots that
    belong to nothing any more are removed. Again every minute: nothing is left for a restart."""
    try:
        owned = {_recover(master, row) for row in rows(master.reader)}
        master.groups.sweep()
        _remove_strays(master, owned)
    except (StoreError, OSError) as error:
        log.error("cannot look for tasks without an owner", why=str(error))
    master.loop.after(SWEEP_EVERY, lambda: _sweep_again(master))


def tidy(master: Master) -> None:
    """At the end of a stop: slots of workers that have died since the last sweep go, too."""
    with contextlib.suppress(StoreError, OSError):  # else the next start does it
        _remove_strays(master, {owner_of(row)[0] for row in rows(master.reader)})


def _remove_strays(master: Master, owned: set[str]) -> None:
    """What no task and no worker that we know has to do with. Raises OSError."""
    for name in os.listdir(master.places.slots):
        if name not in owned and not _is_known(master, name):
            with contextlib.suppress(FileNotFoundError):  # its worker removes it just now
                _remove_stray(os.path.join(master.places.slots, name))


def _sweep_again(master: Master) -> None:
    if master.is_serving:
        sweep(master)
    elif not master.stopping:
        master.loop.after(SWEEP_EVERY, lambda: _sweep_again(master))


def _is_known(master: Master, name: str) -> bool:
    """A slot, or a file with arguments, of a worker that we have."""
    stem = name.partition(".")[0]
    return any(worker.id.hex() == stem for worker in master.workers)


def resume(master: Master) -> None:
    """After an exec: go on watching the owners that the master before was watching."""
    for running in master.attempts.all():
        if master.attempts.worker_of(running.task) is None:
            row = master.reader.task(running.task)
            if row is not None and row.worker is not None:
                slot, who = owner_of(row)
                master.loop.soon(functools.partial(_watch, master, running, slot, who))
    master.loop.after(SWEEP_EVERY, lambda: _sweep_again(master))


def _recover(master: Master, row: Row) -> str:
    slot, who = owner_of(row)
    if row.id in master.attempts:
        return slot
    running = of_row(row)
    master.attempts.hold(running, None)
    log.info("found running", task=row.id, attempt=row.attempt, pid=who.pid)
    master.loop.soon(lambda: _watch(master, running, slot, who))  # which may have to be repeated
    return slot


def _watch(master: Master, running: Running, slot: str, who: Identity) -> None:
    """Settle it now if its owner is dead, else when it dies."""
    if _is_dead(master, slot, who):
        _end_when_over(master, running, slot, who, Patience())
        return
    if process.is_gone(who):  # its lock is held by a process that is not to be seen from here
        master.loop.after(LOCKED_AGAIN, lambda: _watch(master, running, slot, who))
        return
    master.orphans.watch(who, lambda: _watch(master, running, slot, who))


def _is_dead(master: Master, slot: str, who: Identity) -> bool:
    """By lock and process where there is a slot; by the process alone where there is none."""
    try:
        fd = slot_reader.open_slot(os.path.join(master.places.slots, slot))
    except FileNotFoundError:
        return process.is_gone(who)
    try:
        header = slot_reader.read_header(fd)
        if header.owner != who:  # another's: says nothing
            return process.is_gone(who)
        return slot_owner.is_dead(fd, header)
    except Error:  # a header that cannot be read: the process alone must do
        return process.is_gone(who)
    finally:
        os.close(fd)


def _end_when_over(
    master: Master, running: Running, slot: str, who: Identity, patience: Patience
) -> None:
    """The owner is dead; what it left behind is killed, and only then is its attempt over."""
    same_boot = who.boot == process.boot_id()
    reused = process.start_time(who.pid) not in (None, who.start)
    left = same_boot and not reused and tree.kill_session(who.pid, patience)
    left = (same_boot and mark.kill_wearers(_mark_of(master, slot), patience)) or left
    worker = bytes.fromhex(slot.removesuffix(".slot"))
    left = (same_boot and master.groups.end(worker, patience)) or left
    if left:
        again = STRAGGLERS_AGAIN
        master.loop.after(again, lambda: _end_when_over(master, running, slot, who, patience))
        return
    death = "its process died while the daemon was away" if same_boot else ""
    death = master.groups.explain(worker, death, None) or death
    master.groups.forget(worker)
    _settle(master, running, slot, death, _why_we_ended_it(master, same_boot))


def _why_we_ended_it(master: Master, same_boot: bool) -> str | None:
    if not same_boot:
        return "the machine was restarted"
    if master.was_swept:
        return "the daemon was stopped before the task had left, and its process was ended"
    return None


def _mark_of(master: Master, slot: str) -> int:
    """What the worker's descendants are told by; 0 if its slot does not say. Raises OSError."""
    try:
        fd = slot_reader.open_slot(os.path.join(master.places.slots, slot))
    except FileNotFoundError:
        return 0
    try:
        return slot_reader.mark_of(fd)
    finally:
        os.close(fd)


def _settle(master: Master, running: Running, slot: str, death: str, asked: str | None) -> None:
    path = os.path.join(master.places.slots, slot)

    try:
        fd = slot_reader.open_slot(path)
    except FileNotFoundError:  # who leaves before it begins anything leaves its slot
        master.salvage.hold_lost(running, f"its slot {path} is gone")
        return
    try:
        master.intake.admit(fd)
        master.salvage.end_from_slot(running, fd, path, death, asked)
    except Later as later:
        later.when(lambda: _settle(master, running, slot, death, asked))
    finally:
        os.close(fd)


def _remove_stray(path: str) -> None:
    """What a worker without a task left; arguments in files are for workers of the master before,
    and those drop a task that they have not begun."""
    if path.endswith(".slot"):
        _remove_if_dead(path)
    elif path.endswith((".load", ".plan", ".new")):
        _remove_if_old(path)


def _remove_if_old(path: str) -> None:
    """A file that somebody is about to use, or did not come to use: after a minute it is that."""
    if time.time() - os.stat(path).st_mtime > SWEEP_EVERY:
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

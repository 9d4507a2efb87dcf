"""The old master's last act: hold everything, write the snapshot, become the new image.

Synchronous on purpose: from ``hold_signals`` on nothing else may run in between. Whatever fails
before the exec is undone here, and the deploy is refused: masks, timer, close-on-exec flags and
the writer thread are as they were.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from taskd.errors import DeployRefused, StoreError
from taskd.handoff.dump import dump
from taskd.model.table import after
from taskd.model.upgrade import PHASES, Step
from taskd.posix import limits
from taskd.revision import marker
from taskd.systemd import notify
from taskd.upgrade import image, snapshot, steps

if TYPE_CHECKING:
    from taskd.master.master import Master

FLUSH_WITHIN = 10.0
"""Seconds for the store's writer to commit what it has, and to close."""

WISHES = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)
"""Signals that are wishes: caught and not yet acted on, they go into the snapshot."""


class StoreLostError(BaseException):
    """What failed was undone, but for the store, which cannot be opened again. Nothing could be
    accepted or recorded: this ends the daemon, and its next start goes on."""


def exec_new_image(master: Master) -> None:
    """Never returns if all goes well. Raises whatever failed, with everything undone, or
    StoreLostError."""
    notify.tell("WATCHDOG=1")
    steps.reach("hold signals")
    image.hold_signals()
    caught: set[int] = set()
    try:
        _quieten(master)
        caught = master.loop.caught_signals()
        if master.deploy.is_wished:
            caught.add(signal.SIGHUP)
        _exec(master, [s for s in WISHES if s in caught])
    except BaseException:
        _undo(master, caught)
        raise


def _quieten(master: Master) -> None:
    """Everything submitted is committed, its callbacks have run, and the thread is gone."""
    master.statedir.look()
    if master.statedir.lost is not None:  # the new image would open what is there now
        raise DeployRefused(str(master.statedir.lost))
    steps.reach("flush")
    while master.writer.pending:
        if not master.writer.flush(FLUSH_WITHIN):
            raise DeployRefused("the store did not commit in time; is the disk stuck?")
        master.writer.completions()
    steps.reach("close the store")
    if not master.writer.stop(FLUSH_WITHIN):
        raise DeployRefused("the store did not close in time; is the disk stuck?")
    if master.attempts.unrecorded:  # they wait for a timer, which an exec would lose
        raise DeployRefused("the ends of some tasks could not be recorded yet; is the disk full?")


def _exec(master: Master, wishes: list[int]) -> None:
    target = master.deploy.target
    assert target is not None
    steps.reach("take the snapshot")
    phase = after(PHASES, master.deploy.phase, Step.EXEC)
    raw = dump(master, wishes, phase)
    marker.write(master.places.state, target.path)
    fd = snapshot.seal(raw)
    try:
        steps.reach("open the descriptors")
        master.ledger.open_for_exec(also=fd)
        steps.reach("exec")
        image.arm()
        image.replace(master.deploy.python, fd)
    finally:
        image.disarm()
        os.close(fd)


def _undo(master: Master, caught: set[int]) -> None:
    master.ledger.close_on_exec()
    marker.remove(master.places.state)
    master.catch_signals()
    image.let_signals_through()
    for number in caught:
        os.kill(os.getpid(), number)  # taken out of the pipe, and not acted on
    try:
        with limits.every_descriptor():
            master.writer.start()
    except StoreError as error:
        raise StoreLostError(f"the store cannot be opened again: {error}") from error

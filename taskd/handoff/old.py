"""The old master's last act: hold everything, write the snapshot, become the new image.

Synchronous on purpose: from ``hold_signals`` on no other code may run in between. A failure before
the exec is undone here, and refuses the deploy: signal masks, timer, close-on-exec flags and the
writer thread are as they were.
"""

from __future__ import annotations

import os
import signal

from taskd.errors import DeployRefused, StoreError
from taskd.handoff.dump import dump
from taskd.master.loop import close_on_exec, open_for_exec
from taskd.master.master import Master
from taskd.model.table import after
from taskd.model.upgrade import PHASES, Phase, Step
from taskd.posix import limits
from taskd.protocol.control import NEWEST, newest_of
from taskd.revision import marker
from taskd.systemd import notify
from taskd.upgrade import image, snapshot, steps

FLUSH_WITHIN = 10.0
"""Seconds for the store's writer to commit what it has, and to close."""

WISHES = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)
"""Signals of the operator: those caught and not yet acted on go into the snapshot."""


class StoreLostError(BaseException):
    """The handoff was undone, but the store cannot be opened again. The daemon could accept and
    record nothing: this error ends it, and its next start goes on."""


def connect(master: Master) -> None:
    """Give the master the functions of the handoff, which it cannot import."""
    master.snapshot = lambda: dump(master, [], Phase.ADOPTING)
    master.deploy.hand_over = lambda: exec_new_image(master)


def exec_new_image(master: Master) -> None:
    """Does not return if all goes well. Raises the error of the step that failed, with everything
    undone, or StoreLostError."""
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
    """Commit everything submitted, run its callbacks, and end the writer thread."""
    master.statedir.look()
    if master.statedir.lost is not None:  # the new image would open what is there now
        raise DeployRefused(str(master.statedir.lost))
    steps.reach("flush")
    writer = master.storage.writer
    while writer.pending:
        if not writer.flush(FLUSH_WITHIN):
            raise DeployRefused("the store did not commit in time; is the disk stuck?")
        writer.completions()
    steps.reach("close the store")
    if not writer.stop(FLUSH_WITHIN):
        raise DeployRefused("the store did not close in time; is the disk stuck?")
    if master.intake.unrecorded:  # a timer would try again, and an exec loses timers
        raise DeployRefused("the ends of some tasks could not be recorded yet; is the disk full?")


def _exec(master: Master, wishes: list[int]) -> None:
    steps.reach("take the snapshot")
    _leave_clients(master)
    raw = dump(master, wishes, after(PHASES, master.deploy.progress.phase, Step.EXEC))
    marker.write(master.places.state, master.deploy.target.path)
    fd = snapshot.seal(raw)
    try:
        steps.reach("open the descriptors")
        open_for_exec(master.carried(), also=fd)
        steps.reach("exec")
        image.arm()
        python = master.deploy.python
        os.execv(python, image.command(python, fd))
    finally:
        image.disarm()
        os.close(fd)


def _leave_clients(master: Master) -> None:
    """Clients of a version of the protocol that the next image does not speak stay behind."""
    deploy, clients = master.deploy, master.clients
    is_own = deploy.python == deploy.target.zygote.python
    clients.next_speaks = newest_of(deploy.target.taskd) if is_own else NEWEST
    clients.callers = {caller.client for caller in deploy.callers}


def _undo(master: Master, caught: set[int]) -> None:
    master.clients.next_speaks = NEWEST
    close_on_exec(master.carried())
    marker.remove(master.places.state)
    master.catch_signals()
    image.let_signals_through()
    for number in caught:
        os.kill(os.getpid(), number)  # taken out of the pipe, and not acted on
    try:
        with limits.every_descriptor():
            master.storage.writer.start()
    except StoreError as error:
        raise StoreLostError(f"the store cannot be opened again: {error}") from error

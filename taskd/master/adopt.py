"""The new image: adopt what the snapshot says by looking only, confirm, then serve.

Until ``confirmed`` is written nothing is read, accepted, reaped, dispatched or written: what the
old master left is untouched. From then on the way is forward.
"""

from __future__ import annotations

import gc
import os
import stat
import time

from taskd import log
from taskd.errors import ProtocolError
from taskd.master import load, recovery
from taskd.master.core import Master
from taskd.master.ledger import Entry, Kind
from taskd.master.wire import Messages
from taskd.posix import process
from taskd.systemd import notify
from taskd.upgrade import confirmed, image, snapshot

_STANDARD = {0, 1, 2}


def main(fd: int) -> int:
    """Be the master that the snapshot in ``fd`` describes; the exit status of the daemon."""
    taken = snapshot.read(fd)
    os.close(fd)
    handed = load.entries(taken)
    _close_on_exec(handed)
    _close_unclaimed({entry.fd for entry in handed})
    _check_kinds(handed)
    master = load.Loader(taken).load()
    _check_children(master)
    _confirm(master)
    image.disarm()
    _go_on(master, taken.fields["wishes"])
    gc.freeze()  # what is here now stays: ``__main__`` has kept the collector away from it
    gc.enable()
    master.loop.run()
    master.close()
    return 0


def _close_on_exec(handed: list[Entry]) -> None:
    for entry in handed:
        os.set_inheritable(entry.fd, False)


def _close_unclaimed(known: set[int]) -> None:
    """What came over the exec without being in the ledger has no owner: close it, and say so."""
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd in known or fd in _STANDARD:
            continue
        try:
            if os.get_inheritable(fd):  # ours alone are close-on-exec
                log.warning("closed a descriptor that nobody owns", fd=fd)
                os.close(fd)
        except OSError:
            continue  # the descriptor of the listing itself


def _check_kinds(handed: list[Entry]) -> None:
    """Each descriptor is what the ledger says. Raises ProtocolError."""
    for entry in handed:
        mode = os.fstat(entry.fd).st_mode
        regular = entry.kind in (Kind.SLOT, Kind.LOCK)
        if not (stat.S_ISREG(mode) if regular else stat.S_ISSOCK(mode)):
            raise ProtocolError(f"descriptor {entry.fd} is not a {entry.kind.value}: {entry.name}")


def _check_children(master: Master) -> None:
    """Our children are the processes that the snapshot means, not others of the same pid."""
    for revision in master.revisions:
        if revision.pid is not None and revision.start:
            found = process.start_time(revision.pid)
            if found != revision.start:
                raise ProtocolError(f"pid {revision.pid} is not the zygote of {revision.name}")


def _confirm(master: Master) -> None:
    """The point of no return: any start uses this release from here on."""
    target = master.deploy.target
    assert target is not None
    before = confirmed.read(master.places.confirmed)
    previous = before.release if before else None
    if previous == target.path and before is not None:
        previous = before.previous
    confirmed.write(
        master.places.confirmed,
        confirmed.Confirmed(target.path, previous, target.fingerprint or "", time.time()),
    )


def _go_on(master: Master, wishes: list[int]) -> None:
    """Serve: from here on everything may be read, reaped and dispatched."""
    target = master.deploy.target
    assert target is not None
    before = master.revisions.current
    master.revisions.confirm(target)
    master.is_serving = True
    master.deploy.confirmed(before.name if before else None)
    for client in master.clients:
        client.wire.start()
    for channel in _channels(master):
        channel.wire.start()
        channel.pump()
    master.clients.pump()
    recovery.resume(master)
    master.catch_signals()
    image.let_signals_through()
    master.serve()
    master.revisions.tidy()
    notify.tell("READY=1", f"STATUS={target.name}")
    for number in wishes:
        os.kill(os.getpid(), number)


def _channels(master: Master) -> list[Messages]:
    found = [revision.channel for revision in master.revisions]
    found += [worker.channel for worker in master.workers]
    return [channel for channel in found if channel is not None]

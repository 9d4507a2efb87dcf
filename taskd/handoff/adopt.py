"""The new image: adopt what the snapshot says by looking only, confirm, then serve.

Until ``confirmed`` is written nothing is read, accepted, reaped, dispatched or written: what the
old master left is untouched, so that ``takeover.first`` can give it back. From then on the way
is forward.
"""

from __future__ import annotations

import gc
import os
import stat
import time
from collections.abc import Callable

from taskd import log
from taskd.errors import DeployRefused, ProtocolError
from taskd.handoff import load
from taskd.master.loop.ledger import Entry, Kind
from taskd.master.loop.wire import Messages
from taskd.master.master import Master
from taskd.master.recovery import survivors, unowned
from taskd.posix import process, title
from taskd.revision import confirmed, marker
from taskd.upgrade import image, snapshot, steps
from taskd.upgrade.snapshot import Snapshot

_STANDARD = {0, 1, 2}

_IS = {Kind.SLOT: stat.S_ISREG, Kind.LOCK: stat.S_ISREG, Kind.DIRECTORY: stat.S_ISDIR}
"""What those are that are no sockets."""


def adopt(fd: int, gave_back: bool = False) -> Adopted:
    """The master that the snapshot in ``fd`` describes, whole and idle. Raises whatever fails.

    ``gave_back``: as it was before the deploy that failed.
    """
    steps.reach("read the snapshot")
    taken = snapshot.read(fd)
    steps.reach("check the descriptors")
    handed = load.entries(taken)
    _close_on_exec(handed)
    check_kinds(handed)
    steps.reach("load")
    master = load.Loader(taken, gave_back).load()
    steps.reach("check the children")
    check_children(master)
    steps.reach("open the store")
    master.open_store()
    return Adopted(master, taken, fd)


class Adopted:
    """An adopted master before the decision: ``confirm`` and ``serve``, or ``serve_on``."""

    def __init__(self, master: Master, taken: Snapshot, fd: int) -> None:
        self._master = master
        self._wishes: list[int] = taken.fields["wishes"]
        self._fd = fd

    def confirm(self) -> None:
        """The point of no return: any start uses the new release from here on."""
        target = self._master.deploy.target
        assert target is not None
        places = self._master.places
        before = confirmed.read(places.confirmed)
        previous = before.release if before else None
        if before is not None and previous == target.path:
            previous = before.previous
        now = confirmed.Confirmed(
            target.path,
            previous,
            target.fingerprint or "",
            time.time(),
            tuple(self._master.deploy.unfit),
        )
        try:
            confirmed.write(places.confirmed, now)
        except OSError as error:
            found = confirmed.read(places.confirmed)
            if found != now:
                raise
            log.error("confirmed is in place, but may not survive a power cut", why=str(error))

    def serve(self) -> int:
        """Forward: the new revision serves."""
        steps.reach("settle in")
        master = self._master
        target, before = master.deploy.target, master.revisions.current
        assert target is not None
        if before is not None and before is not target:
            master.after_drain.promise(before.path)  # while the marker stands (see ``start``)
        self._settle_in()
        steps.reach("announce")
        master.revisions.confirm(target)
        master.is_serving = True
        master.deploy.confirmed(before.name if before else None)
        steps.reach("serve")
        return self._run()

    def serve_on(self, reason: str, settled: Callable[[], None]) -> int:
        """We are the image that was there before: the deploy failed, and nothing has changed.

        ``settled`` is called before anybody is told.
        """
        self._settle_in()
        settled()
        master = self._master
        target = master.deploy.target
        name = target.name if target is not None else "the new revision"
        master.is_serving = True
        master.deploy.gave_back(DeployRefused(f"{name} did not take over, {reason}"))
        return self._run()

    def _settle_in(self) -> None:
        """It is decided: no snapshot any more, and nobody's descriptors; and all of the time again
        until we serve, since a hang from here on is ended by the timer too."""
        self._master.is_adopting = False
        title.name(title.MASTER)  # before anybody is told that we serve
        image.arm()
        os.close(self._fd)
        marker.remove(self._master.places.state)
        steps.handed.clear()
        _close_unclaimed(self._master)
        self._master.statedir.adopted()

    def _run(self) -> int:
        """Read, reap, accept, dispatch; until told to stop."""
        master = self._master
        for client in master.clients:
            client.wire.start()
        for channel in _channels(master):
            channel.wire.start()
            channel.pump()
        master.clients.pump()
        master.loop.soon(lambda: unowned.resume(master))  # it reads the store
        survivors.watch(master)
        master.catch_signals()
        image.let_signals_through()
        master.serve()
        master.revisions.tidy()
        master.standing.ready()
        for number in self._wishes:
            os.kill(os.getpid(), number)
        image.disarm()
        gc.freeze()  # what is here now stays: ``takeover.first`` kept the collector away from it
        gc.enable()
        master.loop.run()
        master.end()
        return 0


def _close_on_exec(handed: list[Entry]) -> None:
    for entry in handed:
        os.set_inheritable(entry.fd, False)
    steps.handed.extend(entry.fd for entry in handed)


def _close_unclaimed(master: Master) -> None:
    """What came over the exec without being in the ledger has no owner: close it, and say so."""
    known = {entry.fd for entry in master.ledger.entries()} | _STANDARD
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        try:
            if fd not in known and os.get_inheritable(fd):  # what we made is close-on-exec
                log.warning("closed a descriptor that nobody owns", fd=fd)
                os.close(fd)
        except OSError:
            continue  # the descriptor of the listing itself


def check_kinds(handed: list[Entry]) -> None:
    """Each descriptor is what the ledger says. Raises ProtocolError, OSError."""
    for entry in handed:
        mode = os.fstat(entry.fd).st_mode
        if not _IS.get(entry.kind, stat.S_ISSOCK)(mode):
            raise ProtocolError(f"descriptor {entry.fd} is not a {entry.kind.value}: {entry.name}")


def check_children(master: Master, may_have_gone: bool = False) -> None:
    """The processes that the snapshot means are there, and not others of the same pid.

    ``may_have_gone``: the master that they belong to is not held still (a trial), and may have
    reaped one meanwhile. One that is not our child is never held for us by its death: that it is
    gone is found when it is watched again.
    """
    for revision in master.revisions:
        if revision.pid is None or not revision.start:
            continue
        found = process.start_time(revision.pid)
        if found is None and (may_have_gone or revision.is_foreign):
            continue
        if found != revision.start:
            raise ProtocolError(f"pid {revision.pid} is not the zygote of {revision.name}")


def _channels(master: Master) -> list[Messages]:
    found = [revision.channel for revision in master.revisions]
    found += [worker.channel for worker in master.workers]
    return [channel for channel in found if channel is not None]

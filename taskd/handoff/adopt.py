"""The new image adopts the old master's state from the snapshot, changing nothing; then it serves.

Until ``confirmed`` is written nothing is read, accepted, reaped, dispatched or written: the old
master's state is untouched, so that ``first`` can give it back. From then on there is no way back.
A trial goes through the same steps, as a child, with a copy.
"""

from __future__ import annotations

import gc
import os
import socket
import stat
import time
from collections.abc import Callable

from taskd import log
from taskd.errors import DeployRefused, ProtocolError
from taskd.handoff import load, old
from taskd.master.loop import Entry, Kind, LifeEvent, close_on_exec
from taskd.master.master import Master
from taskd.posix import process, title
from taskd.revision import confirmed, marker
from taskd.upgrade import image, snapshot, steps
from taskd.upgrade.snapshot import Snapshot

_STANDARD = {0, 1, 2}

_IS = {Kind.SLOT: stat.S_ISREG, Kind.LOCK: stat.S_ISREG, Kind.DIRECTORY: stat.S_ISDIR}
"""The file type of each kind that is not a socket."""


class Adoption:
    """A master in the making. ``is_trial``: of a copy, in a child that has none of the master's
    descriptors and writes nothing. ``gave_back``: this image was there before, and the deploy has
    failed."""

    master: Master
    _taken: Snapshot
    _handed: list[Entry]

    def __init__(self, fd: int, is_trial: bool = False, gave_back: bool = False) -> None:
        """``fd``: the snapshot."""
        self._fd = fd
        self._is_trial = is_trial
        self._gave_back = gave_back

    def adopt(self) -> None:
        """All steps before the decision: of a new image, of a trial, and of an image that gets the
        daemon back. Raises any error of a step; then nothing has changed."""
        steps.reach("read the snapshot")
        self._taken = snapshot.read(self._fd)
        steps.reach("check the descriptors")
        self._handed = load.entries(self._taken)
        if self._is_trial:
            for entry in self._handed:
                _stand_in(entry)
        close_on_exec(self._handed)
        steps.handed.extend(entry.fd for entry in self._handed)
        check_kinds(self._handed)
        steps.reach("load")
        self.master = load.Loader(self._taken, self._gave_back).load()
        old.connect(self.master)
        steps.reach("check the children")
        check_children(self.master, may_have_gone=self._is_trial)
        steps.reach("open the store")
        answers = True
        if self._is_trial:
            answers = self.master.storage.try_to_open()
        else:
            self.master.storage.open()
        if answers:
            self.master.unowned.complete()

    # ── the decision ─────────────────────────────────────────────────────────────────────────

    def confirm(self) -> None:
        """The point of no return: any start uses the new release from here on."""
        target = self.master.deploy.target
        path = self.master.places.confirmed
        now = confirmed.Confirmed(
            target.path,
            None,
            target.fingerprint or "",
            time.time(),
            tuple(self.master.deploy.unfit),
            self.master.deploy.settings,
        ).after(confirmed.read(path))
        try:
            confirmed.write(path, now)
        except OSError as error:
            if confirmed.read(path) != now:
                raise
            log.error("confirmed is in place, but may not survive a power cut", why=str(error))

    def serve(self) -> int:
        """The new revision serves, to the daemon's end. Returns the exit status."""
        steps.reach("settle in")
        master = self.master
        target, before = master.deploy.target, master.revisions.current
        if before is not None and before is not target:
            master.after_drain.promise(before.path)  # while the marker stands (see ``start``)
        self._settle_in()
        steps.reach("announce")
        master.revisions.confirm(target)
        master.life.take(LifeEvent.SERVE)
        master.listeners.set_modes()  # of the new [access], before a client is told
        master.deploy.confirmed(before.name if before else None)
        steps.reach("serve")
        return self._run()

    def serve_on(self, reason: str, settled: Callable[[], None]) -> int:
        """This is the image that was there before: the deploy failed, and nothing has changed.

        ``settled`` is called before any client is told.
        """
        self._settle_in()
        settled()
        deploy = self.master.deploy
        deploy.gave_back(DeployRefused(f"{deploy.target.name} did not take over, {reason}"))
        return self._run()

    def _settle_in(self) -> None:
        """It is decided which image serves: close the snapshot, and descriptors without an owner.
        The timer starts anew: it also ends a hang between here and serving."""
        title.name(title.MASTER)  # before any client is told that it serves
        image.arm()
        os.close(self._fd)
        marker.remove(self.master.places.state)
        steps.handed.clear()
        _close_unclaimed(self.master)
        self.master.statedir.adopted()

    def _run(self) -> int:
        """Read, reap, accept, dispatch; until told to stop."""
        master = self.master
        for client in master.clients:
            client.wire.watch()
        channels = [revision.zygote.channel for revision in master.revisions]
        for channel in [*channels, *(worker.channel for worker in master.workers)]:
            if channel is not None:
                channel.wire.watch()
                channel.pump()
        master.clients.pump()
        master.loop.soon(master.unowned.resume)  # it reads the store
        master.survivors.watch()
        master.catch_signals()
        image.let_signals_through()
        master.serve()
        master.retirement.look()
        master.systemd.ready()
        for number in self._taken.fields["wishes"]:
            os.kill(os.getpid(), number)
        image.disarm()
        gc.freeze()  # the adopted state stays; ``first`` has switched the collector off
        gc.enable()
        master.loop.run()
        master.end()
        return 0


def _stand_in(entry: Entry) -> None:
    """In a trial: something empty of the same kind at the same number."""
    if entry.kind is Kind.DIRECTORY:
        made = os.open("/", os.O_RDONLY)
    elif entry.kind in _IS:
        made = os.memfd_create("trial")
    else:
        ours, theirs = socket.socketpair()
        theirs.close()
        made = ours.detach()
    os.dup2(made, entry.fd)
    if made != entry.fd:
        os.close(made)


def _close_unclaimed(master: Master) -> None:
    """Close the descriptors that came over the exec and are not in the ledger, and log each."""
    known = {entry.fd for entry in master.carried()} | _STANDARD
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        try:
            if fd not in known and os.get_inheritable(fd):  # what was made here is close-on-exec
                log.warning("closed a descriptor without an owner", fd=fd)
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
    """Check that the zygotes of the snapshot live, and that no pid has been reused. Raises
    ProtocolError.

    ``may_have_gone``: in a trial the master goes on, and may have reaped a zygote meanwhile. A
    zygote that is not the master's child may have been reaped by init: that it is gone is found
    when it is watched again.
    """
    for revision in master.revisions:
        zygote = revision.zygote
        if zygote.pid is None or not zygote.start:
            continue
        found = process.start_time(zygote.pid)
        if found is None and (may_have_gone or zygote.is_foreign):
            continue
        if found != zygote.start:
            raise ProtocolError(f"pid {zygote.pid} is not the zygote of {revision.name}")

"""The state directory is this daemon's alone, and stays the one that it was.

In the master. Two locks say whose it is, taken at a start before anything else is touched and kept
over each exec: the file ``lock`` (a record lock, which tells the pid), and the directory itself,
since a file can be removed, and then another daemon would lock a new one.

While the daemon serves, ``rounds`` has this look whether the directory, the store and its log are
those that it has open. If they were moved away or others put in their place, what is written would
be gone with the next exec or start: nothing new is accepted or started until they are back. What
can be made anew (the lock's file, the directories of slots and the like) is.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from taskd import log, paths
from taskd.errors import ConfigError, Error, StoreError
from taskd.master.loop.ledger import Kind, Ledger
from taskd.master.loop.trouble import UNWRITABLE
from taskd.posix import files, locks

if TYPE_CHECKING:
    from taskd.master.master import Master

DIRECTORY, FILE = "state", "lock"
"""The two locks' names in the ledger."""

_STORE_BACK = "put it back; to restore a backup, stop the daemon first"
_LOG_BACK = "stop the daemon, which writes what is in it into the store, and start it"

_CANNOT = "a directory of the daemon's is gone, and cannot be made anew"


def take(places: paths.Places, ledger: Ledger) -> None:
    """One daemon per state directory. Raises ConfigError naming the one that is there, OSError."""
    fd = files.open_own(places.lock, os.O_RDWR | os.O_CREAT)
    try:
        locks.take(fd)
        take_directory(places, ledger)
    except locks.Held as held:
        who = f" (pid {held.pid})" if held.pid else ""
        raise ConfigError(
            f"another taskd{who} runs on the state directory {places.state}"
        ) from None
    ledger.add(fd, Kind.LOCK, FILE)


def take_directory(places: paths.Places, ledger: Ledger) -> None:
    """Where the file system cannot, the file's lock must do. Raises Held."""
    try:
        ledger.add(locks.take_directory(places.state), Kind.DIRECTORY, DIRECTORY)
    except OSError as error:
        log.warning("the state directory itself cannot be locked", why=error.strerror)


class StateDirectory:
    """``lost``: what is not there any more; None: all is well."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._open: dict[str, tuple[int, int]] = {}  # the store's files, as they were opened
        self.lost: StoreError | None = None

    def adopted(self) -> None:
        """The image before this one may be of a taskd that did not lock the directory."""
        if DIRECTORY not in self._master.ledger:
            try:
                take_directory(self._master.places, self._master.ledger)
            except locks.Held as held:
                log.error("another process has locked the state directory", pid=held.pid)

    def look(self) -> None:
        """Raises OSError, for want of what passes."""
        why = self._find()
        if why is None and self.lost is not None:
            self._master.loop.troubles.over(UNWRITABLE)
            self._master.dispatch.kick()
        self.lost = None if why is None else StoreError(why)

    def _find(self) -> str | None:
        """What is wrong and stays so; the rest is put right."""
        places, ledger = self._master.places, self._master.ledger
        if DIRECTORY in ledger and not files.is_at(
            places.state, files.identity(ledger[DIRECTORY]), follow=True
        ):
            return (
                f"the state directory {places.state} was moved away from under the daemon: put it "
                "back, or restart the daemon to go on with what is there now"
            )
        for path, advice in ((places.store, _STORE_BACK), (f"{places.store}-wal", _LOG_BACK)):
            if (how := self._taken(path)) is not None:
                return f"{path} was {how} under the daemon: {advice}"
        self._make_anew()
        return self._relock()

    def _taken(self, path: str) -> str | None:
        """What became of one of the store's files; None: it is the one that is open, or there was
        none up to now (a log that nothing was written to)."""
        try:
            now = files.at(path)
        except FileNotFoundError:
            return "removed" if path in self._open else None
        return None if self._open.setdefault(path, now) == now else "replaced"

    def opened(self) -> None:
        """The store was opened just now."""
        self._open = {}
        self._taken(self._master.places.store)

    def _make_anew(self) -> None:
        places = self._master.places
        wanted = (places.slots, places.zygotes, places.scratch, places.logs)
        gone = [path for path in wanted if not os.path.lexists(path)]
        if not gone:
            return
        try:
            paths.ensure(places)
        except Error as error:
            self._master.loop.troubles.tell(_CANNOT, error)
            return
        log.warning("directories were gone, and are made anew", paths=", ".join(gone))

    def _relock(self) -> str | None:
        """The file of the lock is the one that we have locked; what was put in its place is locked
        as well, unless another daemon has."""
        path, ledger = self._master.places.lock, self._master.ledger
        if files.is_at(path, files.identity(ledger[FILE])):
            return None
        fd = files.open_own(path, os.O_RDWR | os.O_CREAT)
        try:
            locks.take(fd)
        except locks.Held as held:
            os.close(fd)
            return f"another daemon (pid {held.pid}) has locked {path}: end one of the two"
        log.warning("the lock's file was gone, and is made anew", path=path)
        os.close(ledger[FILE])
        ledger.drop(FILE)
        ledger.add(fd, Kind.LOCK, FILE)
        return None

"""Locks the state directory for this daemon, and checks that its files are still in place.

A start takes two locks before it touches anything else, and each exec carries them: the file
``lock`` (a record lock, which tells the pid), and the directory itself, since the file can be
removed, and then another daemon would lock a new one. A pid file, if configured, is locked as well.

While the daemon serves, the periodic checks call ``look``: are the directory, the store and its
write-ahead log those that the daemon has open? If they were moved or replaced, the next exec or
start would lose what is written now: nothing new is accepted or started until they are back. The
lock's file and the directories (slots, zygotes, scratch, logs) are made anew if they are gone.
"""

from __future__ import annotations

import os

from taskd import log, paths
from taskd.errors import ConfigError, Error, StoreError
from taskd.master.loop.ledger import Entry, Kind
from taskd.master.loop.notice import Notice
from taskd.master.loop.trouble import UNWRITABLE, Troubles
from taskd.posix import files, locks

DIRECTORY, FILE, PIDFILE = "state", "lock", "pidfile"
"""Names of the locks in the ledger."""

_STORE_BACK = "put it back; to restore a backup, stop the daemon first"
_LOG_BACK = "stop the daemon, which writes what is in it into the store, and start it"

_CANNOT = "a directory of the daemon's is gone, and cannot be made anew"


class StateDirectory:
    """``locks``: by name, owned. ``lost``: which of the daemon's files is gone, or None. ``back``:
    what was lost is in place again."""

    def __init__(self, places: paths.Places, troubles: Troubles) -> None:
        self._places = places
        self._troubles = troubles
        self.locks: dict[str, Entry] = {}
        self._open: dict[str, tuple[int, int]] = {}  # the store's files, as they were opened
        self.lost: StoreError | None = None
        self.back: Notice[[]] = Notice()

    def adopted(self) -> None:
        """A new image serves: lock the directory if that was not possible before."""
        if DIRECTORY not in self.locks:
            try:
                self.locks |= _take_directory(self._places)
            except locks.Held as held:
                log.error("another process has locked the state directory", pid=held.pid)

    def opened(self) -> None:
        """The store was opened just now: remember which file that is."""
        self._open = {}
        self._taken(self._places.store)

    def look(self) -> None:
        """Check the files, set ``lost``, and make anew what can be. Raises OSError: a transient
        error."""
        why = self._find()
        if why is None and self.lost is not None:
            self._troubles.over(UNWRITABLE)
            self.back()
        self.lost = None if why is None else StoreError(why)

    def _find(self) -> str | None:
        """What is wrong and needs the operator, or None."""
        directory = self.locks.get(DIRECTORY)
        if directory is not None and not files.is_at(
            self._places.state, files.identity(directory.fd), follow=True
        ):
            return (
                f"the state directory {self._places.state} was moved away from under the daemon: "
                "put it back, or restart the daemon to go on with what is there now"
            )
        store = self._places.store
        for path, advice in ((store, _STORE_BACK), (f"{store}-wal", _LOG_BACK)):
            if (how := self._taken(path)) is not None:
                return f"{path} was {how} under the daemon: {advice}"
        self._make_anew()
        return self._relock()

    def _taken(self, path: str) -> str | None:
        """What happened to a file of the store; None: it is the one that is open, or there was none
        yet (a write-ahead log without content)."""
        try:
            now = files.at(path)
        except FileNotFoundError:
            return "removed" if path in self._open else None
        return None if self._open.setdefault(path, now) == now else "replaced"

    def _make_anew(self) -> None:
        places = self._places
        wanted = (places.slots, places.zygotes, places.scratch, places.logs)
        gone = [path for path in wanted if not os.path.lexists(path)]
        if not gone:
            return
        try:
            paths.ensure(places)
        except Error as error:
            self._troubles.tell(_CANNOT, error)
            return
        log.warning("directories were gone, and are made anew", paths=", ".join(gone))

    def _relock(self) -> str | None:
        """Lock the file ``lock`` again if another file is in its place. Returns what is wrong if
        another daemon has locked that."""
        path = self._places.lock
        if files.is_at(path, files.identity(self.locks[FILE].fd)):
            return None
        fd = files.open_own(path, os.O_RDWR | os.O_CREAT)
        try:
            locks.take(fd)
        except locks.Held as held:
            os.close(fd)
            return f"another daemon (pid {held.pid}) has locked {path}: end one of the two"
        log.warning("the lock's file was gone, and is made anew", path=path)
        os.close(self.locks[FILE].fd)
        self.locks[FILE] = Entry(fd, Kind.LOCK, FILE)
        return None


def take_locks(places: paths.Places) -> dict[str, Entry]:
    """One daemon per state directory. Raises OSError, or ConfigError naming the other daemon."""
    fd = files.open_own(places.lock, os.O_RDWR | os.O_CREAT)
    try:
        locks.take(fd)
        return {FILE: Entry(fd, Kind.LOCK, FILE)} | _take_directory(places)
    except locks.Held as held:
        who = f" (pid {held.pid})" if held.pid else ""
        raise ConfigError(
            f"another taskd{who} runs on the state directory {places.state}"
        ) from None


def _take_directory(places: paths.Places) -> dict[str, Entry]:
    """Empty where the file system cannot lock a directory: the file's lock must do. Raises Held."""
    try:
        fd = locks.take_directory(places.state)
    except OSError as error:
        log.warning("the state directory itself cannot be locked", why=error.strerror)
        return {}
    return {DIRECTORY: Entry(fd, Kind.DIRECTORY, DIRECTORY)}

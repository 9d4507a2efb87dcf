"""The state directory is this daemon's alone, and stays the one that it was.

Two locks say whose it is, taken at a start before anything else is touched and kept over each exec:
the file ``lock`` (a record lock, which tells the pid), and the directory itself, since a file can
be removed, and then another daemon would lock a new one. A pid file, if one is wanted, is locked
likewise.

While the daemon serves, the periodic checks have this look whether the directory, the store and its
log are those that it has open. If they were moved away or others put in their place, what is
written would be gone with the next exec or start: nothing new is accepted or started until they are
back. What can be made anew (the lock's file, the directories of slots and the like) is.
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
"""The locks' names in the ledger."""

_STORE_BACK = "put it back; to restore a backup, stop the daemon first"
_LOG_BACK = "stop the daemon, which writes what is in it into the store, and start it"

_CANNOT = "a directory of the daemon's is gone, and cannot be made anew"


class StateDirectory:
    """Owns the locks. ``lost``: which of the daemon's files is not there any more; None: all are.

    ``back`` is told when what was lost is back.
    """

    def __init__(self, places: paths.Places, troubles: Troubles) -> None:
        self._places = places
        self._troubles = troubles
        self._locks: dict[str, Entry] = {}
        self._open: dict[str, tuple[int, int]] = {}  # the store's files, as they were opened
        self.lost: StoreError | None = None
        self.back: Notice[[]] = Notice()

    # ── the locks ────────────────────────────────────────────────────────────────────────────

    def take(self) -> None:
        """Raises as ``take_locks``."""
        for lock in take_locks(self._places):
            self.keep(lock)

    def keep(self, lock: Entry) -> None:
        """Hold that lock, which was taken here or by the master before this one."""
        self._locks[lock.name] = lock

    def carried(self) -> list[Entry]:
        return list(self._locks.values())

    def adopted(self) -> None:
        """A new image serves: the file system may lock directories by now."""
        if DIRECTORY not in self._locks:
            try:
                for lock in _take_directory(self._places):
                    self.keep(lock)
            except locks.Held as held:
                log.error("another process has locked the state directory", pid=held.pid)

    # ── what is there ────────────────────────────────────────────────────────────────────────

    def opened(self) -> None:
        """The store was opened just now."""
        self._open = {}
        self._taken(self._places.store)

    def look(self) -> None:
        """Raises OSError: a transient error."""
        why = self._find()
        if why is None and self.lost is not None:
            self._troubles.over(UNWRITABLE)
            self.back()
        self.lost = None if why is None else StoreError(why)

    def _find(self) -> str | None:
        """What is wrong and stays so; the rest is put right."""
        directory = self._locks.get(DIRECTORY)
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
        """What became of one of the store's files; None: it is the one that is open, or there was
        none up to now (a log that nothing was written to)."""
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
        """The file of the lock is the one that is locked; a file put in its place is locked as
        well, unless another daemon has."""
        path = self._places.lock
        if files.is_at(path, files.identity(self._locks[FILE].fd)):
            return None
        fd = files.open_own(path, os.O_RDWR | os.O_CREAT)
        try:
            locks.take(fd)
        except locks.Held as held:
            os.close(fd)
            return f"another daemon (pid {held.pid}) has locked {path}: end one of the two"
        log.warning("the lock's file was gone, and is made anew", path=path)
        os.close(self._locks[FILE].fd)
        self.keep(Entry(fd, Kind.LOCK, FILE))
        return None


def take_locks(places: paths.Places) -> list[Entry]:
    """One daemon per state directory. Raises OSError, ConfigError naming the one that is there."""
    fd = files.open_own(places.lock, os.O_RDWR | os.O_CREAT)
    try:
        locks.take(fd)
        return [Entry(fd, Kind.LOCK, FILE), *_take_directory(places)]
    except locks.Held as held:
        who = f" (pid {held.pid})" if held.pid else ""
        raise ConfigError(
            f"another taskd{who} runs on the state directory {places.state}"
        ) from None


def _take_directory(places: paths.Places) -> list[Entry]:
    """Where the file system cannot lock a directory, the file's lock must do. Raises Held."""
    try:
        return [Entry(locks.take_directory(places.state), Kind.DIRECTORY, DIRECTORY)]
    except OSError as error:
        log.warning("the state directory itself cannot be locked", why=error.strerror)
        return []

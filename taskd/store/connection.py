"""Opening the store's SQLite file, and SQLite's errors in plain words.

Runs in the master: one connection for the writer thread, a read-only one for the loop. Only the
owner can read the file (mode 0600; SQLite gives the write-ahead log and its index the same mode).
Opening reads the first page and the log since its last checkpoint, however many tasks there are.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator

from taskd import errors
from taskd.posix import files
from taskd.store import schema

BUSY_TIMEOUT = 5.0
"""Seconds to wait for another process (an operator's shell, a backup) that holds the file."""

_WRITER_CACHE = 16 * 1024  # KiB; submission ids are random, so their index is hit all over
_LOG_LIMIT = 16 * 1024 * 1024  # bytes the log's file keeps once a large transaction is over

_TICK = 1_000_000  # steps of SQLite's machine: a fraction of a second

_RESTORE = "restore it from a backup, or move it away to begin with an empty one"

_SENTENCES = {
    sqlite3.SQLITE_FULL: "the disk is full; free some space in {directory}",
    sqlite3.SQLITE_READONLY: "it may not be written to; check the file's owner and the mount of "
    "{directory}",
    sqlite3.SQLITE_BUSY: "another process has locked it; see who with `fuser {path}`",
    sqlite3.SQLITE_LOCKED: "another process has locked it; see who with `fuser {path}`",
    sqlite3.SQLITE_CORRUPT: f"the file is damaged; {_RESTORE}",
    sqlite3.SQLITE_NOTADB: f"the file is damaged, or not a store; {_RESTORE}",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; check {directory} and its permissions",
    sqlite3.SQLITE_IOERR: "reading or writing failed; check the disk, and what space is free in "
    "{directory}",
}
_VAGUE = frozenset((sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR))
"""Codes that have many causes: the operating system tells more."""


_UNDONE = frozenset((sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_WRITE))


def is_unknown(error: sqlite3.Error) -> bool:
    """Whether COMMIT raised ``error`` at a moment when the log may hold the whole transaction.

    SQLite writes the transaction's frames into the log, the one that ends it last, then syncs the
    log, then enters the frames in the index ("-shm"). Where the sync or the index fails, COMMIT
    rolls back: no connection sees the transaction. But its frames stand whole in the log until
    others are written over them, and whoever opens the store after a kill or a power cut makes the
    index anew, from the log, and finds the transaction committed. (Where reading or writing fails,
    or the disk is full, the last frame is not whole. An error of the checkpoint that follows a
    commit is not told.)
    """
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF == sqlite3.SQLITE_IOERR and code not in _UNDONE


def failure(error: sqlite3.Error, path: str) -> errors.StoreError:
    """``error`` as a sentence that says what to do."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest tells kinds of one code apart
    directory = os.path.dirname(os.path.abspath(path))
    why = _SENTENCES.get(code, "SQLite refused").format(path=path, directory=directory)
    cause = files.why_not(directory) if code in _VAGUE else None
    told = f"{error}; {cause.strerror}" if cause is not None else str(error)
    is_damaged = code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    kind = errors.StoreDamaged if is_damaged else errors.StoreError
    return kind(f"the store {path} failed: {why} ({told})")


@contextlib.contextmanager
def told(path: str) -> Iterator[None]:
    """What SQLite raises in the block is a StoreError outside of it."""
    try:
        yield
    except sqlite3.Error as error:
        raise failure(error, path) from error


def shrink(connection: sqlite3.Connection, size: int) -> None:
    """Cut so many bytes of unused pages off the file (see ``pragma auto_vacuum``)."""
    page = connection.execute("pragma page_size").fetchone()[0]
    # ``execute`` would step once, which frees one page. No transaction may be open.
    connection.executescript(f"pragma incremental_vacuum({max(1, size // page)})")


def compact(connection: sqlite3.Connection) -> None:
    """Write the file anew, so that ``shrink`` works on it. The log takes as much room as the file
    meanwhile, and is cut at the end."""
    connection.execute("pragma auto_vacuum = incremental")
    connection.execute("vacuum")
    connection.execute("pragma wal_checkpoint(truncate)").fetchall()


def call_at_work(connection: sqlite3.Connection, tick: Callable[[], None]) -> None:
    """Have ``tick`` called now and then within a statement that takes long."""
    connection.set_progress_handler(tick, _TICK)


def damaged(path: str, what: str) -> errors.StoreDamaged:
    """The error for ``what``, which a check of the whole file has found."""
    return errors.StoreDamaged(f"the store {path} is damaged; {_RESTORE} ({what})")


def open_writing(path: str) -> sqlite3.Connection:
    """The writer's connection; makes the file and its tables if missing. Raises StoreError."""
    connection: sqlite3.Connection | None = None
    try:
        _make_private(path)
        connection = connect(path, "rw")
        found = schema.check(connection, path)  # before a change to another program's file
        if found == 0:  # only before the first table
            connection.execute("pragma auto_vacuum = incremental")
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma synchronous = full")
        connection.execute(f"pragma cache_size = -{_WRITER_CACHE}")
        connection.execute(f"pragma journal_size_limit = {_LOG_LIMIT}")
        if found == 0:
            schema.create(connection)
        else:
            schema.grow(connection)
        return connection
    except BaseException as error:
        if connection is not None:
            connection.close()
        raise _told(error, path) from error


def open_reading(path: str) -> sqlite3.Connection:
    """A connection that cannot write. Raises StoreError, also if there is no store yet."""
    connection: sqlite3.Connection | None = None
    try:
        connection = connect(path, "ro")
        if schema.check(connection, path) == 0:
            raise errors.StoreError(f"the store {path} is empty; the daemon makes it at its start")
        return connection
    except BaseException as error:
        if connection is not None:
            connection.close()
        raise _told(error, path) from error


def _told(error: BaseException, path: str) -> BaseException:
    if isinstance(error, sqlite3.Error):
        return failure(error, path)
    if isinstance(error, OSError):
        return errors.StoreError(f"the store {path} failed: {error.strerror}")
    return error


def connect(path: str, mode: str) -> sqlite3.Connection:
    """Open the store's file; ``mode`` is "ro" or "rw". Nothing is read yet.

    Raises sqlite3.Error, and StoreError for what is not a file: SQLite would wait for a pipe.
    """
    for each in (path, f"{path}-wal", f"{path}-shm"):
        _check_regular(each)
    name = os.path.abspath(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    return sqlite3.connect(
        f"file://{name}?mode={mode}", timeout=BUSY_TIMEOUT, isolation_level=None, uri=True
    )


def _check_regular(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise errors.StoreError(
                f"{path} is a link, or something else than a file: put the store itself there"
            )


def _make_private(path: str) -> None:
    """Make the file if it is missing, and give it mode 0600.

    Only SQLite ever opens an existing file: closing a second descriptor of it would drop the record
    locks of every connection that this process has to it.
    """
    try:
        made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        _check_regular(path)
        os.chmod(path, 0o600)
        return
    os.close(made)
    files.sync_directory(os.path.dirname(os.path.abspath(path)))

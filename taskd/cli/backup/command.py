"""``taskd backup FILE``: a copy of all tasks while the daemon runs. ``taskd restore FILE``: back.

The store alone is not the state: what runs saves into its slot. A backup has both (see
``store.backup``); it has neither logs nor scratch directories, nor the release. As root both verbs
look at the state as its owner does, so that no file of root's gets into the owner's directory.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator

from taskd import paths
from taskd.cli.outcome import DONE
from taskd.errors import Error, StoreError
from taskd.posix import files
from taskd.protocol import cbor
from taskd.protocol.saved import RawSaved
from taskd.slot import kept_state, layout, owner, reader
from taskd.store.values import Row

NEW = ".new"
"""Ends the name of the directory in which a backup is made, beside its file."""


def _add_state(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--state",
        metavar="DIR",
        help="the daemon's state directory (default: yours; the system's for root)",
    )


def add_backup(parser: ArgumentParser) -> None:
    """``backup [--state DIR] FILE``"""
    parser.description = (
        "Copy all tasks, with what the running ones have saved, into FILE (mode 0600), while the "
        "daemon runs or not. FILE is replaced once the copy is whole, checked and synced."
    )
    parser.add_argument("file", metavar="FILE")
    _add_state(parser)


def add_restore(parser: ArgumentParser) -> None:
    """``restore [--state DIR] FILE``"""
    parser.description = (
        "Put a backup in the place of the store, with the daemon stopped. It starts with all tasks "
        "paused: see what may have been done since, then `taskctl resume --all`."
    )
    parser.add_argument("file", metavar="FILE")
    _add_state(parser)


def do_backup(args: Namespace) -> int:
    """Raises Error."""
    from taskd.store import backup

    places = _places(args)
    file = os.path.abspath(args.file)
    work = file + NEW
    with _told(file), contextlib.suppress(FileNotFoundError):
        shutil.rmtree(work)  # of one that was cut off
    uid = os.getuid()
    try:
        with _told(file):
            os.mkdir(work, 0o700)
            os.chown(work, os.stat(places.state).st_uid, -1)
        made = os.path.join(work, "store.db")
        with _as_owner(places.state):
            os.close(files.open_own(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            backup.copy(places.store, made)
            counts = backup.make_ready(made, uid, lambda row, stored: _saved(places, row, stored))
        with _told(file):
            fd = os.open(made, os.O_RDONLY | os.O_CLOEXEC)
            os.fsync(fd)
            os.fchown(fd, uid, -1)
            os.close(fd)
            os.rename(made, file)
            files.sync_directory(os.path.dirname(file))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    told = ", ".join(f"{count:,} {state.value}" for state, count in sorted(counts.items()))
    print(f"{file}: {os.path.getsize(file):,} bytes; {told or 'no tasks'}")
    return DONE


def _saved(places: paths.Places, row: Row, stored: bytes | None) -> RawSaved | None:
    """What stands in the slot of a task that runs, if it is still that attempt's. What cannot be
    read is let be: the store has what was saved before."""
    assert row.worker is not None, "it runs"
    name = layout.file_name(cbor.loads(row.worker)[0])
    try:
        fd = reader.open_slot(os.path.join(places.slots, name))
    except FileNotFoundError:
        return None
    try:
        content = kept_state.read(fd)
        is_its_own = content.saves > 0 and kept_state.is_of(content, row.id, row.attempt)
        return kept_state.add_up(content, stored) if is_its_own else None
    except (Error, KeyError, TypeError):
        return None
    finally:
        os.close(fd)


def do_restore(args: Namespace) -> int:
    """Raises Error."""
    from taskd.master.loop import statedir
    from taskd.store import backup, connection, sqlite

    places = _places(args)
    with _told(args.file):
        source = os.open(args.file, os.O_RDONLY | os.O_CLOEXEC)
    with _as_owner(places.state):
        locks = statedir.take_locks(places)
        _check_nobody_lives(places)
        new = places.store + NEW
        with _told(new), open(files.open_own(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC), "wb") as to:
            with open(source, "rb") as from_:
                shutil.copyfileobj(from_, to, 1 << 20)
            to.flush()
            os.fsync(to.fileno())
        try:
            with contextlib.closing(connection.open_reading(new)) as raw, connection.told(new):
                backup.check(raw, new)
            aside = os.path.join(places.state, f"before-restore-{time.time_ns()}")
            with _told(aside):
                os.mkdir(aside, 0o700)
                with contextlib.suppress(StoreError):  # it is damaged: its log is kept with it
                    if os.path.exists(places.store):
                        sqlite.SqliteStore(places.store).close()  # empties its log
                for end in ("-wal", "-shm"):
                    _move(places.store + end, aside)
                with contextlib.suppress(FileNotFoundError):
                    os.link(places.store, os.path.join(aside, os.path.basename(places.store)))
                for directory in (places.slots, places.zygotes):
                    for name in os.listdir(directory) if os.path.isdir(directory) else ():
                        _move(os.path.join(directory, name), aside)
                os.rename(new, places.store)
                files.sync_directory(places.state)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(new)
            raise
        for entry in locks.values():
            os.close(entry.fd)
    print(
        f"{places.store} is that of {args.file}; what was there is in {aside}. The daemon starts "
        "with everything paused: `taskctl resume --all` lets it go on"
    )
    return DONE


def _move(path: str, aside: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, os.path.join(aside, os.path.basename(path)))


def _check_nobody_lives(places: paths.Places) -> None:
    """Raises Error: a worker of before would go on with a task that is restored."""
    names = os.listdir(places.slots) if os.path.isdir(places.slots) else []
    for name in names:
        if not name.endswith(layout.SUFFIX):
            continue
        with contextlib.suppress(FileNotFoundError):
            fd = reader.open_slot(os.path.join(places.slots, name))
            try:
                header = reader.read_header(fd)
                if not owner.is_dead(fd, header):
                    raise _Lives(
                        f"a worker of the daemon still runs (pid {header.owner.pid}): stop the "
                        "service for good, or end it, and restore then"
                    )
            except _Lives:
                raise
            except Error:
                continue  # nothing can be said of it
            finally:
                os.close(fd)


class _Lives(Error):
    """Somebody still writes into the state directory."""


def _places(args: Namespace) -> paths.Places:
    state = os.path.abspath(args.state or paths.places(os.environ, os.getuid()).state)
    if not os.path.isdir(state):
        raise Error(f"there is no state directory {state}: name it with --state")
    return paths.Places(state, "", "")


@contextlib.contextmanager
def _as_owner(state: str) -> Iterator[None]:
    """In the block this process is the state directory's owner. Raises Error."""
    found = os.stat(state)
    if found.st_uid == os.geteuid():
        yield
        return
    if os.geteuid() != 0:
        raise Error(f"{state} belongs to user {found.st_uid}: only that user and root may do this")
    groups, gid = os.getgroups(), os.getegid()
    os.setgroups([])
    os.setegid(found.st_gid)
    os.seteuid(found.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(gid)
        os.setgroups(groups)


@contextlib.contextmanager
def _told(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Error(f"{error.filename or path}: {error.strerror}") from error

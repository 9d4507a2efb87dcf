"""Looks at the machine for ``taskd install`` and ``taskd uninstall``, and changes it.

Runs in the command line, as root for the system's taskd. Every change is whole or not made: files
are renamed into place.
"""

from __future__ import annotations

import glob
import grp
import os
import pwd
import shutil
import stat
import subprocess
from contextlib import suppress

from taskd.cli.install.foreign import MARK, WRITTEN
from taskd.cli.install.installation import (
    CONFIG,
    DIRECTORY,
    FILE,
    LINK,
    OTHER,
    SYSUSERS,
    UNITS,
    Entry,
    Found,
    Installation,
)
from taskd.cli.install.plan import Change
from taskd.errors import Error
from taskd.posix.files import write_atomically

_COMMANDS_MODULE = b"from taskd.cli"

_AT_REST = frozenset({"inactive", "failed", ""})


def look(wanted: Installation) -> Found:
    """The machine as it is, as far as it matters for ``wanted``."""
    paths = (*wanted.ours, *wanted.yours, *wanted.links)
    paths += (*wanted.kept, *wanted.overrides, *wanted.enabled, *wanted.rivals)
    entries = {path: entry for path in paths if (entry := _entry(path)) is not None}
    user = None
    with suppress(KeyError):
        user = pwd.getpwnam(wanted.account or "")
    groups = {}
    for name in (wanted.account, wanted.group):
        with suppress(KeyError):
            groups[name or ""] = grp.getgrnam(name or "")
    accounts = [user.pw_name] if user else []
    accounts += [name for name in groups if name == wanted.group]
    siblings, plain = _others(wanted)
    is_booted = _is_booted(wanted)
    return Found(
        entries=entries,
        holds=_holds(wanted),
        owned=_owned(wanted, user),
        accounts=frozenset(accounts),
        home=user.pw_dir if user else None,
        members={name: tuple(group.gr_mem) for name, group in groups.items()},
        programs=frozenset(
            path
            for path, target in wanted.links.items()
            if (there := entries.get(path)) is not None
            and there.kind == LINK
            and there.content != target
            and _is_another_program(path)
        ),
        hidden={
            path: behind
            for path in wanted.links
            if _is_another_program(behind := f"/usr/bin/{os.path.basename(path)}")
        },
        others=siblings or plain,
        siblings=siblings,
        is_booted=is_booted,
        is_running=is_booted and _is_running(wanted),
    )


def make(change: Change) -> None:
    """Make one change. Raises Error saying what could not be done and why."""
    try:
        if change.verb in ("create", "update") and change.entry is not None:
            _put(change.path, change.entry, change.verb == "create")
        elif change.verb == "remove":
            _remove(change.path)
        elif change.verb == "run":
            ran = subprocess.run(
                change.words, stdin=subprocess.DEVNULL, capture_output=True, text=True
            )
            if ran.returncode != 0:
                said = (ran.stderr or ran.stdout).strip() or f"exit status {ran.returncode}"
                raise Error(f"`{' '.join(change.words)}` failed: {said}")
    except OSError as error:
        what = change.words[0] if change.words else change.path
        raise Error(f"cannot {change.verb} {what}: {error.strerror}") from error


def _entry(path: str) -> Entry | None:
    """What is at ``path``; None also if a dry run's user may not look, and no text of a file that
    they may not read."""
    try:
        mode = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    if stat.S_ISLNK(mode):
        return Entry(LINK, os.readlink(path))
    if not stat.S_ISREG(mode):
        return Entry(DIRECTORY if stat.S_ISDIR(mode) else OTHER)
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return Entry(FILE, file.read())
    except PermissionError:
        return Entry(FILE)


def _holds(wanted: Installation) -> dict[str, tuple[str, ...]]:
    """The names in each directory, but for those that are not there or that a dry run's user may
    not read; without ``lost+found``, which is the file system's."""
    holds = {}
    for path in (*wanted.kept, *[wanted.shelf] * bool(wanted.shelf)):
        with suppress(OSError):
            holds[path] = tuple(name for name in sorted(os.listdir(path)) if name != "lost+found")
    return holds


def _owned(wanted: Installation, user: pwd.struct_passwd | None) -> frozenset[str]:
    """The directories that belong to the service's user, or to the user who asks."""
    if wanted.account and user is None:
        return frozenset()
    uid, owned = user.pw_uid if user else os.getuid(), set()
    for path in wanted.kept:
        with suppress(OSError):
            if os.lstat(path).st_uid == uid:
                owned.add(path)
    return frozenset(owned)


def _is_another_program(path: str) -> bool:
    """Whether there is a program at ``path`` that is none of taskd's. A link that leads nowhere is
    what a taskd that was removed has left."""
    try:
        with open(path, "rb") as file:
            return _COMMANDS_MODULE not in file.read(4096)
    except OSError:
        return False


def _others(wanted: Installation) -> tuple[bool, bool]:
    """Whether an installation with a name exists besides ``wanted``, and whether the one without
    a name does."""
    if wanted.account is None:
        return False, False
    siblings = set(glob.glob(f"{SYSUSERS}/taskd-*.conf")) - {wanted.sysusers}
    plain = f"{UNITS}/taskd.service"
    is_plain = plain not in wanted.ours and WRITTEN in ((_entry(plain) or Entry("")).content)
    return bool(siblings), is_plain


def _is_booted(wanted: Installation) -> bool:
    """Whether the service manager of the installation can be reached; not so in a chroot."""
    if wanted.account is not None:
        return os.path.isdir("/run/systemd/system")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return bool(runtime) and os.path.exists(f"{runtime}/systemd/private")


def _is_running(wanted: Installation) -> bool:
    words = [*wanted.systemctl, "show", "--value", "--property=ActiveState", *wanted.units]
    states = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout
    return any(state not in _AT_REST for state in states.split("\n"))


def _put(path: str, entry: Entry, is_new: bool) -> None:
    if os.path.basename(path) == MARK:
        _write_mark(path, entry.content)
        return
    _make_directory(os.path.dirname(path))
    if entry.kind == DIRECTORY:  # as the service would make it at its first start
        os.mkdir(path, 0o700)
        if entry.content:
            account = pwd.getpwnam(entry.content)
            os.chown(path, account.pw_uid, account.pw_gid)
    elif entry.kind == LINK:
        os.symlink(entry.content, f"{path}.new")
        os.rename(f"{path}.new", path)
    elif is_new:  # never over a file that was made there since we looked
        draft = f"{path}.draft"
        write_atomically(draft, entry.content.encode(), 0o644)
        try:
            os.link(draft, path)
        finally:
            os.unlink(draft)
    else:
        write_atomically(path, entry.content.encode(), 0o644)


def _write_mark(path: str, text: str) -> None:
    """The mark belongs to the directory's owner, who could put any link there: none is followed."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, text.encode())
        owner = os.lstat(os.path.dirname(path))
        os.fchown(fd, owner.st_uid, owner.st_gid)
    finally:
        os.close(fd)


def _make_directory(path: str) -> None:
    """Make the directory and its parents, readable by all under every umask."""
    if os.path.isdir(path):
        return
    _make_directory(os.path.dirname(path))
    os.mkdir(path)
    os.chmod(path, 0o755)


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        with suppress(FileNotFoundError):
            os.unlink(path)
    above = os.path.dirname(path)
    if above in (CONFIG, SYSUSERS) or above.endswith(("/.config/taskd", "/lib/taskd")):
        with suppress(OSError):  # not empty: it is not ours alone
            os.rmdir(above)

"""Looking at the machine for ``taskd install`` and ``taskd uninstall``, and changing it.

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
from taskd.cli.install.found import DIRECTORY, FILE, LINK, OTHER, Entry, Found
from taskd.cli.install.installation import CONFIG, SYSUSERS, UNITS, Site
from taskd.cli.install.plan import Change
from taskd.errors import Error
from taskd.posix.files import write_atomically

_COMMANDS_MODULE = b"from taskd.cli"
_START = 4096
"""Bytes of a command, in which its import stands."""

_AT_REST = frozenset({"inactive", "failed", ""})


def look(site: Site) -> Found:
    """The machine as it is, as far as it matters for ``site``."""
    entries = {path: entry for path in site.paths if (entry := _entry(path)) is not None}
    siblings, plain = _others(site)
    return Found(
        entries=entries,
        holds={path: names for path in site.directories if (names := _names(path)) is not None},
        owned=_owned(site),
        accounts=_accounts(site),
        home=_home(site),
        members=_members(site),
        programs=_programs(site, entries),
        hidden=_hidden(site),
        others=siblings or plain,
        siblings=siblings,
        is_booted=_is_booted(site),
        is_running=_is_running(site),
    )


def make(change: Change) -> None:
    """Make one change. Raises Error saying what could not be done and why."""
    try:
        if change.verb in ("create", "update") and change.entry is not None:
            _put(change.path, change.entry, change.verb == "create")
        elif change.verb == "remove":
            _remove(change.path)
        elif change.verb == "run":
            _run(change.words)
    except OSError as error:
        what = change.words[0] if change.words else change.path
        raise Error(f"cannot {change.verb} {what}: {error.strerror}") from error


def _entry(path: str) -> Entry | None:
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        return None  # a dry run by somebody who may not look
    if stat.S_ISLNK(found.st_mode):
        return Entry(LINK, os.readlink(path))
    if stat.S_ISREG(found.st_mode):
        return Entry(FILE, _text(path))
    return Entry(DIRECTORY if stat.S_ISDIR(found.st_mode) else OTHER)


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except PermissionError:
        return ""


def _accounts(site: Site) -> frozenset[str]:
    found = set()
    with suppress(KeyError):
        found.add(pwd.getpwnam(site.account or "").pw_name)
    with suppress(KeyError):
        found.add(grp.getgrnam(site.group or "").gr_name)
    return frozenset(found)


def _home(site: Site) -> str | None:
    try:
        return pwd.getpwnam(site.account or "").pw_dir
    except KeyError:
        return None


def _members(site: Site) -> dict[str, tuple[str, ...]]:
    found = {}
    for name in (site.account, site.group):
        with suppress(KeyError):
            found[name or ""] = tuple(grp.getgrnam(name or "").gr_mem)
    return found


def _names(path: str) -> tuple[str, ...] | None:
    """In a directory, without ``lost+found``, which is nobody's; None if it is not there, or that
    may not be known in a dry run."""
    try:
        return tuple(sorted(name for name in os.listdir(path) if name != "lost+found"))
    except OSError:
        return None


def _owned(site: Site) -> frozenset[str]:
    try:
        uid = pwd.getpwnam(site.account).pw_uid if site.account else os.getuid()
    except KeyError:
        return frozenset()
    return frozenset(path for path in site.kept if _owner(path) == uid)


def _owner(path: str) -> int | None:
    try:
        return os.lstat(path).st_uid
    except OSError:
        return None


def _programs(site: Site, entries: dict[str, Entry]) -> frozenset[str]:
    """The links that somebody else has made."""
    return frozenset(
        path
        for path, target in site.links.items()
        if (there := entries.get(path)) is not None
        and there.kind == LINK
        and there.content != target
        and _is_another_program(path)
    )


def _is_another_program(path: str) -> bool:
    """Whether there is a program at ``path`` that is none of taskd's. A link that leads nowhere is
    what a taskd that was removed has left."""
    try:
        with open(path, "rb") as file:
            return _COMMANDS_MODULE not in file.read(_START)
    except OSError:
        return False


def _hidden(site: Site) -> dict[str, str]:
    """Other programs of the names of ours that come later in everybody's $PATH."""
    places = {path: f"/usr/bin/{os.path.basename(path)}" for path in site.links}
    return {path: behind for path, behind in places.items() if _is_another_program(behind)}


def _others(site: Site) -> tuple[bool, bool]:
    """Whether one of several is installed besides ``site``, and whether the system's one is."""
    if site.account is None:
        return False, False
    siblings = set(glob.glob(f"{SYSUSERS}/taskd-*.conf")) - {site.sysusers}
    plain = f"{UNITS}/taskd.service"
    is_plain = plain not in site.ours and WRITTEN in ((_entry(plain) or Entry("")).content)
    return bool(siblings), is_plain


def _is_booted(site: Site) -> bool:
    """Whether the service manager that the site is for can be spoken with; not so in a chroot."""
    if site.account is not None:
        return os.path.isdir("/run/systemd/system")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return bool(runtime) and os.path.exists(f"{runtime}/systemd/private")


def _is_running(site: Site) -> bool:
    if not _is_booted(site):
        return False
    words = [*site.systemctl, "show", "--value", "--property=ActiveState", *site.units]
    states = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout
    return any(state not in _AT_REST for state in states.split("\n"))


def _put(path: str, entry: Entry, is_new: bool) -> None:
    if os.path.basename(path) == MARK:
        _write_mark(path, entry.content)
        return
    _make_directory(os.path.dirname(path))
    if entry.kind == DIRECTORY:
        _make_theirs(path, entry.content)
        return
    if entry.kind == LINK:
        os.symlink(entry.content, f"{path}.new")
        os.rename(f"{path}.new", path)
    elif is_new:
        _write_new(path, entry.content)
    else:
        write_atomically(path, entry.content.encode(), 0o644)


def _write_new(path: str, text: str) -> None:
    """As ``write_atomically``, but never over a file that came there meanwhile."""
    draft = f"{path}.draft"
    write_atomically(draft, text.encode(), 0o644)
    try:
        os.link(draft, path)
    finally:
        os.unlink(draft)


def _make_theirs(path: str, owner: str) -> None:
    """As the service would make it at its first start."""
    os.mkdir(path, 0o700)
    if owner:
        account = pwd.getpwnam(owner)
        os.chown(path, account.pw_uid, account.pw_gid)


def _write_mark(path: str, text: str) -> None:
    """Belongs to who owns the directory, and could put anything there: nothing is followed."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, text.encode())
        owner = os.lstat(os.path.dirname(path))
        os.fchown(fd, owner.st_uid, owner.st_gid)
    finally:
        os.close(fd)


def _make_directory(path: str) -> None:
    """With its parents, open to all whatever the umask is."""
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


def _run(words: tuple[str, ...]) -> None:
    ran = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if ran.returncode != 0:
        said = (ran.stderr or ran.stdout).strip() or f"exit status {ran.returncode}"
        raise Error(f"`{' '.join(words)}` failed: {said}")

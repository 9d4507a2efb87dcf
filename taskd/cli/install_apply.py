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

from taskd.cli.install_plan import DIRECTORY, FILE, LINK, OTHER, Change, Entry, Found
from taskd.cli.site import CONFIG, SYSUSERS, UNITS, Site
from taskd.errors import Error
from taskd.posix.files import write_atomically

_AT_REST = frozenset({"inactive", "failed", ""})


def look(site: Site) -> Found:
    """The machine as it is, as far as it matters for ``site``."""
    entries = {path: entry for path in site.paths if (entry := _entry(path)) is not None}
    return Found(
        entries=entries,
        accounts=_accounts(site),
        others=_others(site),
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


def _others(site: Site) -> bool:
    """Whether another installation of the system's kind uses what is shared."""
    if site.account is None:
        return False
    accounts = glob.glob(f"{SYSUSERS}/taskd-*.conf") + glob.glob(f"{UNITS}/taskd.service")
    own = {site.sysusers, *site.ours}
    return any(path not in own for path in accounts)


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
    _make_directory(os.path.dirname(path))
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

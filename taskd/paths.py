"""The directories and files of a daemon: where they are, their names and their modes.

Used by the daemon and by clients. Imports nothing slow. Only ``ensure`` and ``is_own`` touch the
disk. There are three directories:

state    what must outlive a reboot: the store, the slots, the tasks' scratch directories
runtime  the sockets; gone after a reboot
logs     what the tasks wrote to their standard output and error

The service manager names each (the first entry of ``$STATE_DIRECTORY`` and so on). If it does not,
root has the system's directories, and another user has directories by the XDG rules. A user without
``$XDG_RUNTIME_DIR`` gets a private directory under /tmp. The daemon and clients trust it only while
it is a real directory, owned by that user, that no other user may enter.

The files in them and their modes, whatever the umask is. Each mode is as narrow as works:

    state, logs             0700 if the daemon makes them. A directory that exists keeps its mode,
                            and is refused if another user (root excepted) owns it or may write to
                            it: that user could replace a file, and so have the daemon read, write
                            or run any file
    state/slots, zygotes    0700  what a task has saved; who is a worker
    state/proved            0700  what releases were proved with: the app's environment too
    state/scratch, and N    0700  a task's own files: it may open them to others itself
    state/store.db*, lock   0600  everybody's arguments, states and results
    state/confirmed, rejected, handoff, after-drain
                            0600  only the daemon reads them: taskctl asks the daemon
    state/slots/*           0600  slots, arguments on their way (.load, .plan)
    logs/N.log, taskd.log   0600  what the tasks print; other users read it through the daemon
    runtime                 0755  other users must reach submit.sock in it (0700 under /tmp, where
                            only the daemon's own user has clients)
    runtime/worker.sock     0600  only zygotes and workers connect
    runtime/control.sock    0600; 0666 with [access] admin_groups
    runtime/submit.sock     0600; 0666 with either list of groups. A file has one group only, so the
                            master decides after the connect, by the peer's groups (SO_PEERGROUPS)
    runtime/taskd.pid       0644  a number that ps shows as well
    runtime/swept           0600  made by the unit's stop-post: it has killed leftover tasks
    runtime/killed          0600  made by the unit's stop-post: when a signal last killed a daemon

No other user can change these directories, so a path in them leads to the daemon's own file. Files
are opened without following a link all the same: an older start, another mode or a restored backup
may have left a link.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping

from taskd.errors import ConfigError
from taskd.record import Record

SYSTEM_STATE_DIR = "/var/lib/taskd"
SYSTEM_RUNTIME_DIR = "/run/taskd"
SYSTEM_LOGS_DIR = "/var/log/taskd"

CONTROL_SOCKET = "control.sock"
SUBMIT_SOCKET = "submit.sock"
WORKER_SOCKET = "worker.sock"

UNITS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "systemd", "units")
MORE = os.path.join(UNITS, "more.conf")
"""This installation's systemd units; and the file that lists what a task may need beyond the units'
sandbox."""


class _Name:
    """The path of an entry of one of the three directories, as an attribute."""

    def __init__(self, directory: str, name: str) -> None:
        self._directory = directory
        self._name = name

    def __get__(self, places: _Directories, _: object = None) -> str:
        return os.path.join(getattr(places, self._directory), self._name)


class _Directories(Record):
    state: str
    runtime: str
    logs: str


class Places(_Directories):
    """The three directories of one daemon, as absolute paths, and the paths of what is in them."""

    store = _Name("state", "store.db")
    """The SQLite file: everything at rest."""

    lock = _Name("state", "lock")
    """Locked by the one daemon that may use this state directory."""

    confirmed = _Name("state", "confirmed")
    """Names the release that any start uses; written in a deploy's last step alone."""

    proved = _Name("state", "proved")
    """Directory of what the confirmed release, and the one before, were proved with."""

    slots = _Name("state", "slots")
    """Directory of the workers' slot files."""

    zygotes = _Name("state", "zygotes")
    """Directory of the zygotes' records, by which a master finds those of the one before."""

    scratch = _Name("state", "scratch")
    """Directory of the tasks' scratch directories."""

    control_socket = _Name("runtime", CONTROL_SOCKET)
    """For the service's user, root and the admin groups."""

    submit_socket = _Name("runtime", SUBMIT_SOCKET)
    """Also for the submit groups, whose members see and change only their own tasks."""

    worker_socket = _Name("runtime", WORKER_SOCKET)
    """For the daemon's own zygotes and workers."""

    swept = _Name("runtime", "swept")
    """Exists after a stop in which systemd/stop-post had to kill tasks, without the daemon."""

    pid_file = _Name("runtime", "taskd.pid")
    """Written and locked by ``taskd run --detach``."""

    def task_scratch(self, task: int) -> str:
        """The scratch directory of one task, kept over all its attempts."""
        return os.path.join(self.scratch, str(task))

    def task_log(self, task: int) -> str:
        """The file that takes one task's output, over all its attempts."""
        return os.path.join(self.logs, f"{task}.log")


def user_runtime_dir(environ: Mapping[str, str] | None = None, uid: int | None = None) -> str:
    """The runtime directory of a user's own daemon. It need not exist (see ``is_own``).

    Default: this process's environment and user.
    """
    environ = os.environ if environ is None else environ
    base = _absolute(environ, "XDG_RUNTIME_DIR")
    if base is not None:
        return os.path.join(base, "taskd")
    return _private_runtime_dir(os.getuid() if uid is None else uid)


def places(environ: Mapping[str, str], uid: int) -> Places:
    """Where a daemon of user ``uid`` with this environment keeps its files; creates nothing.

    Raises ConfigError if neither the environment nor the user database names a home.
    """
    names = ("STATE_DIRECTORY", "RUNTIME_DIRECTORY", "LOGS_DIRECTORY")
    given = (environ.get(name, "").split(":", 1)[0] for name in names)  # the first of several
    state, runtime, logs = (os.path.abspath(each) if each else None for each in given)
    if uid == 0:
        return Places(
            state or SYSTEM_STATE_DIR, runtime or SYSTEM_RUNTIME_DIR, logs or SYSTEM_LOGS_DIR
        )
    return Places(
        state or _user_state(environ, uid),
        runtime or user_runtime_dir(environ, uid),
        logs or os.path.join(_user_state(environ, uid), "logs"),
    )


def ensure(where: Places, uid: int | None = None) -> None:
    """Create the three directories and slots/, zygotes/ and scratch/, where they are missing.

    They are private (0700), except the runtime directory (0755): the users of submit.sock must be
    able to reach it; each socket's mode and the peer's user decide who may use it. A directory
    that exists keeps its mode (the service manager or an administrator chose it), and is refused if
    others may write to it. Raises ConfigError naming the directory and why it cannot be used.
    """
    owner = os.getuid() if uid is None else uid
    if where.runtime == _private_runtime_dir(owner):
        _create(where.runtime, 0o700)
        _check_private(where.runtime, owner)
    else:
        _create(where.runtime, 0o755)
    for path in (where.state, where.logs, where.slots, where.zygotes, where.scratch):
        _create(path, 0o700)
    for path in dict.fromkeys((*where, where.slots, where.zygotes, where.scratch)):
        _check_closed(path, owner)


def is_own(path: str, uid: int) -> bool:
    """True if ``path`` is a real directory that this user or root owns and no other may write to.

    A client asks this before it trusts a socket under /tmp, where any user can make one.
    """
    try:
        found = os.lstat(path)
    except OSError:
        return False
    is_closed = not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISDIR(found.st_mode) and found.st_uid in (uid, 0) and is_closed


def config_home(environ: Mapping[str, str], uid: int) -> str:
    """The user's own configuration directory: $XDG_CONFIG_HOME or ~/.config."""
    return _absolute(environ, "XDG_CONFIG_HOME") or os.path.join(home(environ, uid), ".config")


def _user_state(environ: Mapping[str, str], uid: int) -> str:
    base = _absolute(environ, "XDG_STATE_HOME")
    return os.path.join(base or os.path.join(home(environ, uid), ".local", "state"), "taskd")


def _private_runtime_dir(uid: int) -> str:
    return f"/tmp/taskd-{uid}"


def _absolute(environ: Mapping[str, str], name: str) -> str | None:
    """An XDG variable; the XDG specification has a relative path ignored."""
    value = environ.get(name, "")
    return value if os.path.isabs(value) else None


def home(environ: Mapping[str, str], uid: int) -> str:
    """The user's home directory. Raises ConfigError if there is none."""
    named = _absolute(environ, "HOME")
    if named is not None:
        return named
    import pwd

    try:
        return pwd.getpwuid(uid).pw_dir
    except KeyError:
        raise ConfigError(
            f"user {uid} has no home directory: set HOME, or STATE_DIRECTORY, RUNTIME_DIRECTORY "
            "and LOGS_DIRECTORY"
        ) from None


def _create(path: str, mode: int) -> None:
    """Make ``path`` and its missing parents; ``mode`` holds whatever the umask is."""
    try:
        _make(path)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchmod(fd, mode)
        finally:
            os.close(fd)
    except FileExistsError:
        if not os.path.isdir(path):
            raise ConfigError(f"{path} is not a directory: move it out of the way") from None
    except OSError as error:
        raise ConfigError(f"cannot create the directory {path}: {error.strerror}") from error


def _make(path: str) -> None:
    """Make ``path`` and its missing parents, and sync each parent: files synced in a directory are
    lost in a power cut if the directory's own name is."""
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        with contextlib.suppress(FileExistsError):  # another process made it meanwhile
            _make(parent)
    os.mkdir(path, 0o755)
    with contextlib.suppress(PermissionError):  # a parent that we may not read cannot be synced
        fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _check_private(path: str, uid: int) -> None:
    """Any user may have made a name in /tmp: only our own, closed directory is used."""
    with contextlib.suppress(FileNotFoundError):  # another user's, removed meanwhile
        found = os.lstat(path)
        if stat.S_ISDIR(found.st_mode) and found.st_uid == uid and not found.st_mode & 0o077:
            return
    raise ConfigError(
        f"{path} is not a private directory of user {uid} (a directory of that owner with mode "
        "0700): remove it, or set XDG_RUNTIME_DIR to a directory of your own"
    )


_NOBODY = 65534
"""In a container, the owner shown for files of users that the container does not have."""


def _check_closed(path: str, uid: int) -> None:
    """Raises ConfigError if a user other than ``uid`` and root can change the entries of ``path``,
    or put another directory in its place."""
    try:
        links = [at for at in _on_the_way(path) if os.path.islink(at)]
        for link in links:
            _check_owner(link, os.lstat(link).st_uid, uid, path)
        real = os.path.realpath(path)
        found = os.stat(real)
        above = [(at, os.stat(at)) for at in _on_the_way(real)[:-1]]
    except OSError as error:
        raise ConfigError(f"cannot use the directory {path}: {error.strerror}") from error
    _check_owner(real, found.st_uid, uid, path)
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(
            f"others may write to {real} (mode {stat.S_IMODE(found.st_mode):04o}), and could so "
            f"have the daemon read and write any file of theirs: chmod go-w {real}"
        )
    for at, one in above:
        if one.st_uid != _NOBODY:
            _check_owner(at, one.st_uid, uid, path)
        if one.st_mode & stat.S_IWOTH and not one.st_mode & stat.S_ISVTX:
            raise ConfigError(
                f"anybody may write to {at}, and so put another directory in the place of {path}: "
                f"chmod o-w {at}, or use a directory elsewhere"
            )


def _on_the_way(path: str) -> list[str]:
    """``path`` and every directory above it, the root first."""
    found = [path]
    while (above := os.path.dirname(found[0])) != found[0]:
        found.insert(0, above)
    return found


def _check_owner(at: str, owner: int, uid: int, path: str) -> None:
    if owner in (uid, 0):
        return
    role = "" if at == path else f", which {path} goes through,"
    raise ConfigError(
        f"{at}{role} belongs to user {owner}, and the daemon runs as user {uid}: start it as user "
        f"{owner}, chown {at}, or use a directory elsewhere"
    )

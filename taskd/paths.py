"""Where taskd keeps its files, and how each of them is called.

Used by the daemon and by clients; imports nothing heavy and touches the disk only in ``ensure``
and ``is_own``. There are three directories:

state    what must outlive a reboot: the store, the slots, the tasks' scratch directories
runtime  the sockets; gone after a reboot
logs     what the tasks wrote to their standard output and error

Each comes from the service manager (the first entry of ``$STATE_DIRECTORY`` and the like); else
it is the system's place for root; else the user's own by the XDG rules. A user without
``$XDG_RUNTIME_DIR`` gets a private directory under /tmp, which is trusted only while it is a real
directory that belongs to that user and that nobody else may enter.

What is in them, and with which modes, whatever the umask is. Each as tight as works:

    state, logs             0700 if we make them. One that is there keeps its mode, and is refused
                            if another user (root excepted) owns it or may write to it: who can put
                            a name in it, or put another in its place, could have any file of ours
                            read, written or run
    state/slots, zygotes    0700  what a task has saved; who is a worker
    state/scratch, and N    0700  a task's own files: it may open them to others itself
    state/store.db*, lock   0600  everybody's arguments, states and results
    state/confirmed, rejected, handoff, after-drain
                            0600  nobody but the daemon needs them: taskctl asks it
    state/slots/*           0600  slots, arguments on their way (.load, .plan)
    logs/N.log, taskd.log   0600  what the tasks print; others read theirs through the daemon
    runtime                 0755  others must reach submit.sock in it (0700 under /tmp: nobody else
                            has a daemon to reach there)
    runtime/worker.sock     0600  our own processes alone
    runtime/control.sock    0600; 0666 with [access] admin_groups
    runtime/submit.sock     0600; 0666 with either list of groups: a mode has but one group, so who
                            may is decided once they are connected, by what the kernel says of them
    runtime/taskd.pid       0644  a number that ps shows as well
    runtime/swept           0600  made by the unit's stop-post: says that it ended what was left
    runtime/killed          0600  likewise: when a daemon was killed by a signal last

Since nobody else can change what is in these directories, a path in them is ours. Files in them are
opened without following a link all the same, since what an older start, another mode or a restored
backup left there is not known.
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
"""Of this installation: the texts of systemd's units, and the file with a line for each thing that
a task may need beyond their sandbox."""


class Directories(Record):
    """The three directories of one daemon, as absolute paths, and the names of what is inside."""

    state: str
    runtime: str
    logs: str

    @property
    def store(self) -> str:
        """The SQLite file: everything at rest."""
        return os.path.join(self.state, "store.db")

    @property
    def lock(self) -> str:
        """Locked by the one daemon that may use this state directory."""
        return os.path.join(self.state, "lock")

    @property
    def confirmed(self) -> str:
        """Names the release that any start uses; written in a deploy's last step alone."""
        return os.path.join(self.state, "confirmed")

    @property
    def slots(self) -> str:
        """Directory of the workers' slot files."""
        return os.path.join(self.state, "slots")

    @property
    def zygotes(self) -> str:
        """Directory of the zygotes' records, by which a master finds those of the one before."""
        return os.path.join(self.state, "zygotes")

    @property
    def scratch(self) -> str:
        """Directory of the tasks' scratch directories."""
        return os.path.join(self.state, "scratch")

    def task_scratch(self, task: int) -> str:
        """The scratch directory of one task, kept over all its attempts."""
        return os.path.join(self.scratch, str(task))

    def task_log(self, task: int) -> str:
        """The file that takes one task's output, over all its attempts."""
        return os.path.join(self.logs, f"{task}.log")

    @property
    def control_socket(self) -> str:
        """For the service's user, root and the admin groups."""
        return os.path.join(self.runtime, CONTROL_SOCKET)

    @property
    def submit_socket(self) -> str:
        """Also for the submit groups, who see and change their own tasks alone."""
        return os.path.join(self.runtime, SUBMIT_SOCKET)

    @property
    def worker_socket(self) -> str:
        """For the daemon's own zygotes and workers."""
        return os.path.join(self.runtime, WORKER_SOCKET)

    @property
    def swept(self) -> str:
        """There after a stop that had to end tasks without the daemon (systemd/stop-post)."""
        return os.path.join(self.runtime, "swept")

    @property
    def pid_file(self) -> str:
        """Written and locked by ``taskd run --detach``."""
        return os.path.join(self.runtime, "taskd.pid")


def user_runtime_dir(environ: Mapping[str, str] | None = None, uid: int | None = None) -> str:
    """The directory of a user's own daemon's sockets; it need not exist (see ``is_own``).

    Default: this process's environment and user.
    """
    environ = os.environ if environ is None else environ
    base = _absolute(environ, "XDG_RUNTIME_DIR")
    if base is not None:
        return os.path.join(base, "taskd")
    return _private_runtime_dir(os.getuid() if uid is None else uid)


def directories(environ: Mapping[str, str], uid: int) -> Directories:
    """Where a daemon of user ``uid`` with this environment keeps its files; creates nothing.

    Raises ConfigError if neither the environment nor the user database names a home.
    """
    return Directories(
        state=_first(environ, "STATE_DIRECTORY") or _state(environ, uid),
        runtime=_first(environ, "RUNTIME_DIRECTORY") or _runtime(environ, uid),
        logs=_first(environ, "LOGS_DIRECTORY") or _logs(environ, uid),
    )


def ensure(where: Directories, uid: int | None = None) -> None:
    """Create what is missing of the three directories and of slots/, zygotes/ and scratch/.

    All are private (0700) but the runtime one: that is 0755, since the users of submit.sock must
    be able to reach it, and who may use a socket in it is decided by the socket's own mode and by
    the peer's user. One that exists keeps its mode (the service manager or an administrator chose
    it), unless others may write to it. Raises ConfigError naming the directory and why it cannot be
    used.
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
    """True if ``path`` is a real directory of that user's (or root's) that no other may write to.

    A client asks this before it trusts a socket under /tmp, where anybody may have put one.
    """
    try:
        found = os.lstat(path)
    except OSError:
        return False
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (uid, 0):
        return False
    return not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def config_home(environ: Mapping[str, str], uid: int) -> str:
    """The user's own configuration directory: $XDG_CONFIG_HOME or ~/.config."""
    return _absolute(environ, "XDG_CONFIG_HOME") or os.path.join(home(environ, uid), ".config")


def _first(environ: Mapping[str, str], name: str) -> str | None:
    """systemd lists several directories with colons between; the first is ours."""
    first = environ.get(name, "").split(":", 1)[0]
    return os.path.abspath(first) if first else None


def _state(environ: Mapping[str, str], uid: int) -> str:
    return SYSTEM_STATE_DIR if uid == 0 else _user_state(environ, uid)


def _runtime(environ: Mapping[str, str], uid: int) -> str:
    return SYSTEM_RUNTIME_DIR if uid == 0 else user_runtime_dir(environ, uid)


def _logs(environ: Mapping[str, str], uid: int) -> str:
    return SYSTEM_LOGS_DIR if uid == 0 else os.path.join(_user_state(environ, uid), "logs")


def _user_state(environ: Mapping[str, str], uid: int) -> str:
    base = _absolute(environ, "XDG_STATE_HOME")
    return os.path.join(base or os.path.join(home(environ, uid), ".local", "state"), "taskd")


def _private_runtime_dir(uid: int) -> str:
    return f"/tmp/taskd-{uid}"


def _absolute(environ: Mapping[str, str], name: str) -> str | None:
    """An XDG variable; one with a relative path is to be ignored, says the XDG specification."""
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
    """Make it and its missing parents, for good: what is synced in a directory is lost in a power
    cut all the same if the directory's own name is."""
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        with contextlib.suppress(FileExistsError):  # somebody else is making it, too
            _make(parent)
    os.mkdir(path, 0o755)
    with contextlib.suppress(PermissionError):  # it may be written to and not read: all we can
        fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _check_private(path: str, uid: int) -> None:
    """Anybody may have made a name in /tmp: only our own, closed directory is used."""
    with contextlib.suppress(FileNotFoundError):  # it was somebody else's, and is gone again
        found = os.lstat(path)
        if stat.S_ISDIR(found.st_mode) and found.st_uid == uid and not found.st_mode & 0o077:
            return
    raise ConfigError(
        f"{path} is not a private directory of user {uid} (a directory of that owner with mode "
        "0700): remove it, or set XDG_RUNTIME_DIR to a directory of your own"
    )


_NOBODY = 65534
"""Who owns, as far as a container sees it, what belongs to users that it does not have."""


def _check_closed(path: str, uid: int) -> None:
    """Raises ConfigError if another user than ``uid`` and root can change what is in ``path``, or
    put another directory in its place."""
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

"""Control groups (version 2): the group that the daemon may divide, and operations on groups.

A group holds a process and all its descendants, whatever sessions they make and whatever parents
they get; all of it can be killed at once, and the kernel says when it is empty. The daemon may
divide a group that was delegated to it (`Delegate=` in a unit; the attribute ``user.delegate`` says
so), and the outermost group of a container. A user's own service manager sets no attribute: there,
the attribute of ``user@UID.service``, all of whose groups are that user's, also holds for the group
of a service. It does not hold for a scope, which also has a terminal's other processes.

Source: Documentation/admin-guide/cgroup-v2.rst of the kernel; CGROUP_DELEGATION of systemd.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Iterator, Set

from taskd.posix import native
from taskd.posix.cleaners import Patience
from taskd.posix.limits import SHORT
from taskd.record import Record

LEAF = "taskd-master"
"""The group of all processes but workers. A group with limits below it may hold none itself."""

_DELEGATED = ("user.delegate", "trusted.delegate")
_BUSY_TRIES = 20
_REMOVED = frozenset({errno.ENOENT, errno.ENODEV})  # before the file was opened; after
_CANNOT_MOVE = frozenset({errno.ESRCH, errno.EINVAL})  # it has ended; a kernel thread


class Found(Record):
    """``base``: the group that may be divided; None: there is none, for the reason ``why``."""

    base: str | None
    why: str = ""


def find(is_service: bool = False) -> Found:
    """The group to make the workers' groups in. ``is_service``: a service manager has started the
    daemon as a service. Raises OSError for a transient error (SHORT): there may be such a group."""
    try:
        mount, root, path = _own()
    except (OSError, ValueError, LookupError) as error:
        if isinstance(error, OSError) and error.errno in SHORT:
            raise
        return Found(None, "there are no control groups of version 2 here")
    if path.startswith("/.."):
        return Found(None, "the daemon's own group is not to be seen from here")
    own = mount + path.removeprefix(root).rstrip("/")
    above = os.path.dirname(own)
    is_managers = os.path.basename(above).startswith("user@")  # which holds all of a user's units
    for group in (own,) if own == mount or is_managers else (own, above):
        # The machine's own outermost group has no type; a container's is one of the machine's.
        is_containers = group == mount and os.path.exists(os.path.join(group, "cgroup.type"))
        if _is_delegated(group) or is_containers or (is_service and _is_users_service(group)):
            for path in (group, os.path.join(group, "cgroup.procs")):
                if not os.access(path, os.W_OK):
                    return Found(None, f"{path} may not be written to")
            return Found(group)
    return Found(None, f"the group {own} is not delegated to the daemon")


def _own() -> tuple[str, str, str]:
    """Where groups are mounted, which group is mounted there, and this process's group."""
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        path = next(line[3:].rstrip("\n") for line in file if line.startswith("0::"))
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        for line in file:
            words = line.split()
            if words[words.index("-") + 1] == "cgroup2":
                root = "" if words[3] == "/" else words[3]
                if path.startswith(root):
                    return words[4], root, path
    raise LookupError


def _is_delegated(group: str) -> bool:
    for name in _DELEGATED:
        with contextlib.suppress(OSError):
            if os.getxattr(group, name) == b"1":
                return True
    return False


def _is_users_service(group: str) -> bool:
    """Whether ``group`` is a service's, of our user's own service manager."""
    manager = f"user@{os.getuid()}.service"
    above, found, below = group.partition(f"/{manager}/")
    if not found or not below.endswith(".service"):
        return False
    try:
        return os.stat(group).st_uid == os.getuid() and _is_delegated(f"{above}/{manager}")
    except (FileNotFoundError, PermissionError):
        return False


# ── one group ────────────────────────────────────────────────────────────────────────────────


def join(group: str) -> None:
    """Put this process and its later children into ``group``. Raises OSError."""
    write(os.path.join(group, "cgroup.procs"), "0")


def members(group: str) -> set[int]:
    """The pids in the group itself, without zombies. Raises OSError."""
    return set(map(int, read(os.path.join(group, "cgroup.procs")).split()))


def holds_only(group: str, pids: Set[int]) -> bool:
    """Whether no process but ``pids`` lives in the group, and none below it. Raises OSError."""
    return members(group) <= pids and not any(map(is_populated, below(group)))


def is_populated(group: str) -> bool:
    """Whether a process lives in the group or below it. Raises OSError if that cannot be told."""
    try:
        return "populated 1" in read(os.path.join(group, "cgroup.events"))
    except OSError as error:
        if error.errno in _REMOVED:
            return False
        raise


def end(group: str, patience: Patience | None = None) -> bool:
    """SIGKILL to all processes in the group and below it. True while one lives.

    ``patience``: helpers that clean up may end by themselves (see ``cleaners``). Raises OSError if
    that cannot be told (out of descriptors).
    """
    if not is_populated(group):
        return False
    if patience and _end_but_helpers(group, patience):
        return True
    try:
        write(os.path.join(group, "cgroup.kill"), "1")
    except OSError as error:
        if error.errno not in _REMOVED:
            raise
        for each in (*below(group), group):  # Linux before 5.14 has no cgroup.kill
            with contextlib.suppress(FileNotFoundError):
                _kill(members(each))
    return is_populated(group)


def _end_but_helpers(group: str, patience: Patience) -> bool:
    """Kill all but the helpers that are spared. False, and kills none, if there is no helper."""
    found: set[int] = set()
    for each in (*below(group), group):
        try:
            found |= members(each)
        except OSError as error:  # the group was removed, or its processes may not be listed
            if error.errno in SHORT:
                raise
    spared = set(filter(patience.lets_be, found))
    if spared:
        _kill(found - spared)
    return bool(spared)


def _kill(pids: set[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def below(group: str) -> Iterator[str]:
    """The groups in ``group``, the innermost first."""
    try:
        names = os.listdir(group)
    except FileNotFoundError:
        return
    for name in names:
        path = os.path.join(group, name)
        if os.path.isdir(path):
            yield from below(path)
            yield path


def remove(group: str) -> bool:
    """Remove the group and all below it; False if a process lives in it."""
    try:
        for each in (*below(group), group):
            os.rmdir(each)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


# ── limits ───────────────────────────────────────────────────────────────────────────────────


def enable(base: str, wanted: set[str]) -> None:
    """Enable the controllers ``wanted`` in the groups below ``base``. ``base`` itself may hold no
    process then: all that are in it are moved into ``LEAF``. Raises OSError."""
    if wanted <= set(read(os.path.join(base, "cgroup.subtree_control")).split()):
        return
    leaf = os.path.join(base, LEAF)
    with contextlib.suppress(FileExistsError):
        os.mkdir(leaf)
    for left in reversed(range(_BUSY_TRIES)):
        for pid in members(base):
            try:
                write(os.path.join(leaf, "cgroup.procs"), str(pid))
            except OSError as error:
                if error.errno not in _CANNOT_MOVE:
                    raise
        try:
            text = " ".join(f"+{name}" for name in sorted(wanted))
            write(os.path.join(base, "cgroup.subtree_control"), text)
            return
        except OSError as error:
            if error.errno != errno.EBUSY or not left:  # one of them forked just now
                raise


def available(base: str) -> set[str]:
    """The controllers that may be enabled below ``base``. Raises OSError."""
    return set(read(os.path.join(base, "cgroup.controllers")).split())


def oom_kills(group: str) -> int:
    """How many processes of the group the kernel's out-of-memory killer has killed; 0 where the
    kernel does not count."""
    try:
        lines = read(os.path.join(group, "memory.events")).splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    except (OSError, StopIteration):
        return 0


def read(path: str) -> str:
    """Raises OSError."""
    with open(path, encoding="utf-8") as file:
        return file.read()


def write(path: str, text: str) -> None:
    """Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        native.close(fd)

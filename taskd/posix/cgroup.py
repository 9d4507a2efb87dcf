"""Control groups (version 2): finding the one that is ours to divide, and what is done with each.

A group holds every process that comes from the one that was put into it, whatever sessions and
parents they make; all of it can be killed at once, and the kernel says when it is empty. Ours to
divide is a group that was delegated to us (`Delegate=` in a unit; the mark ``user.delegate`` says
so), and the outermost group of a container. A user's own manager sets no mark: the one of its
``user@UID.service``, all of whose groups are that user's, holds for the group of a service there.
It does not for a scope, in which a terminal's other processes are as well.

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
"""The group for everything but workers. A group with limits below it may hold no process itself."""

_DELEGATED = ("user.delegate", "trusted.delegate")
_BUSY_TRIES = 20
_REMOVED = frozenset({errno.ENOENT, errno.ENODEV})  # before it was opened; while it was open
_CANNOT_MOVE = frozenset({errno.ESRCH, errno.EINVAL})  # it is gone; a thread of the kernel


class Found(Record):
    """The group that may be divided, or None and why there is none."""

    base: str | None
    why: str = ""


def find(is_service: bool = False) -> Found:
    """The group to make others in. ``is_service``: a service manager has started us as a service.
    Raises OSError if that cannot be told now, for want of descriptors or memory: it does not mean
    that there is none."""
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
        if _is_delegated(group) or (group == mount and _is_containers(group)):
            return _if_writable(group)
        if is_service and _is_users_service(group):
            return _if_writable(group)
    return Found(None, f"the group {own} is not delegated to the daemon")


def _own() -> tuple[str, str, str]:
    """Where groups are mounted, which group is mounted there, and our own."""
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
    """Whether it is that of a service of our user's own manager."""
    manager = f"user@{os.getuid()}.service"
    above, found, below = group.partition(f"/{manager}/")
    if not found or not below.endswith(".service"):
        return False
    try:
        return os.stat(group).st_uid == os.getuid() and _is_delegated(f"{above}/{manager}")
    except (FileNotFoundError, PermissionError):
        return False


def _is_containers(group: str) -> bool:
    """The machine's own outermost group has no type; a container's is one of the machine's."""
    return os.path.exists(os.path.join(group, "cgroup.type"))


def _if_writable(group: str) -> Found:
    for path in (group, os.path.join(group, "cgroup.procs")):
        if not os.access(path, os.W_OK):
            return Found(None, f"{path} may not be written to")
    return Found(group)


# ── one group ────────────────────────────────────────────────────────────────────────────────


def join(group: str) -> None:
    """Put this process, with what it will make, into ``group``. Raises OSError."""
    write(os.path.join(group, "cgroup.procs"), "0")


def members(group: str) -> set[int]:
    """The pids in the group itself, without zombies. Raises OSError."""
    return set(map(int, read(os.path.join(group, "cgroup.procs")).split()))


def holds_only(group: str, pids: Set[int]) -> bool:
    """Whether nothing but ``pids`` lives in the group, nor anything below it. Raises OSError."""
    return members(group) <= pids and not any(map(is_populated, below(group)))


def is_populated(group: str) -> bool:
    """Whether anything lives in the group or below it. Raises OSError if that cannot be told."""
    try:
        return "populated 1" in read(os.path.join(group, "cgroup.events"))
    except OSError as error:
        if error.errno in _REMOVED:
            return False
        raise


def end(group: str, patience: Patience | None = None) -> bool:
    """SIGKILL to all in the group and below it, whoever's they are. True while anything lives.

    ``patience``: helpers that clean up may end by themselves, for a moment (see ``cleaners``).
    Raises OSError if that cannot be told (out of descriptors).
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
        _kill_each(group)  # Linux before 5.14 has no cgroup.kill
    return is_populated(group)


def _end_but_helpers(group: str, patience: Patience) -> bool:
    """Kill each but the helpers that are let be; False, and nobody is killed, if there is none."""
    found: set[int] = set()
    for each in _with_all_below(group):
        try:
            found |= members(each)
        except OSError as error:  # it is removed meanwhile; or its processes are not to be listed
            if error.errno in SHORT:
                raise
    spared = set(filter(patience.lets_be, found))
    if spared:
        _kill(found - spared)
    return bool(spared)


def _kill_each(group: str) -> None:
    for each in _with_all_below(group):
        with contextlib.suppress(FileNotFoundError):
            _kill(members(each))


def _with_all_below(group: str) -> tuple[str, ...]:
    return (*below(group), group)


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
    """Remove it with all below it; False if something lives in it."""
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
    """Have the controllers ``wanted`` in the groups below ``base``, which may hold no process of
    its own then: all that are in it are moved into ``LEAF``. Raises OSError."""
    if wanted <= set(read(os.path.join(base, "cgroup.subtree_control")).split()):
        return
    leaf = os.path.join(base, LEAF)
    with contextlib.suppress(FileExistsError):
        os.mkdir(leaf)
    for left in reversed(range(_BUSY_TRIES)):
        _move_all(base, leaf)
        try:
            text = " ".join(f"+{name}" for name in sorted(wanted))
            write(os.path.join(base, "cgroup.subtree_control"), text)
            return
        except OSError as error:
            if error.errno != errno.EBUSY or not left:  # one of them forked just now
                raise


def _move_all(base: str, leaf: str) -> None:
    for pid in members(base):
        try:
            write(os.path.join(leaf, "cgroup.procs"), str(pid))
        except OSError as error:
            if error.errno not in _CANNOT_MOVE:
                raise


def available(base: str) -> set[str]:
    """The controllers that may be enabled below ``base``. Raises OSError."""
    return set(read(os.path.join(base, "cgroup.controllers")).split())


def oom_kills(group: str) -> int:
    """How many processes of the group the kernel has killed for want of memory; 0 where nobody
    counts."""
    try:
        lines = read(os.path.join(group, "memory.events")).splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    except (OSError, StopIteration):
        return 0


def read(path: str) -> str:
    """Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = b""
        while part := os.read(fd, 65536):
            text += part
        return text.decode()
    finally:
        native.close(fd)


def write(path: str, text: str) -> None:
    """Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        native.close(fd)

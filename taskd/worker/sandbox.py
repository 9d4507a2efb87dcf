"""What in the service's sandbox has made a call fail: a line for whoever reads of a failed task.

Runs in workers. To the task, the unit's sandbox looks like errors of the system ("Read-only file
system", "Permission denied"), and nothing in them leads to the unit. Whether it is the cause is
told by what this process sees: its mounts, and whether its system calls are filtered. Nothing is
said where no service manager has started the daemon ($INVOCATION_ID).

Invariant: nothing escapes from here. An exception is the app's own object.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from taskd.paths import MORE
from taskd.posix import mounts

_DEEPEST = 10
_HOW = f"{MORE} has the line: put it in with `systemctl edit`, and restart the service"

_ERRNO = OSError.__dict__["errno"]
_FILENAME = OSError.__dict__["filename"]
"""The attributes themselves: a class of the app's may have others of these names."""


def explained(exception: BaseException) -> str:
    """The line, if the sandbox is likely to be the cause; else empty."""
    if not os.environ.get("INVOCATION_ID"):
        return ""
    try:
        found = next(map(_explained, _errors(exception)), "")
        return f"(the service's sandbox: {found}; {_HOW})\n" if found else ""
    except BaseException:
        return ""


def _errors(exception: BaseException) -> Iterator[tuple[int, str]]:
    """Number and path of the system's errors among what led to it, the last one first."""
    at: BaseException | None = exception
    for _ in range(_DEEPEST):
        if at is None:
            return
        if issubclass(type(at), OSError):
            number, name = _ERRNO.__get__(at), _FILENAME.__get__(at)
            if number in (errno.EROFS, errno.EACCES, errno.EPERM):
                yield number, os.path.abspath(os.fsdecode(name)) if name else ""
        at = at.__cause__ or at.__context__


def _explained(error: tuple[int, str]) -> str:
    number, path = error
    if number == errno.EPERM:
        return _filtered()
    if not path:
        return ""
    innermost = mounts.on_the_way(path, mounts.table())[-1]
    if number == errno.EROFS and _is_made_read_only(innermost):
        return f"tasks may not write to {path}: ReadWritePaths= names directories where they may"
    if number == errno.EACCES and _is_hidden(innermost):
        return f"it hides {innermost.at}: ProtectHome= or the like"
    return ""


def _is_made_read_only(mount: mounts.Mount) -> bool:
    """Only here: the file system itself can be written to."""
    return "ro" in mount.options and "rw" in mount.super_options


def _is_hidden(mount: mounts.Mount) -> bool:
    """systemd puts an empty directory of its own in the place of what nobody is to see: in /run,
    /systemd/inaccessible/dir or, in a container, another."""
    return mount.root.endswith("/inaccessible/dir")


def _filtered() -> str:
    with open("/proc/self/status", encoding="utf-8") as file:
        mode = next((line.split()[1] for line in file if line.startswith("Seccomp:")), "0")
    if mode != "2":
        return ""
    return "maybe one of the calls that SystemCallFilter= refuses, such as chown, nice and mount"

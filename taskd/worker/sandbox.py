"""Explains an error that the service's sandbox has caused, in a line of the task's traceback.

Runs in workers. The unit's sandbox makes calls fail with plain system errors ("Read-only file
system", "Permission denied"), which do not name the unit. Whether it is the cause is told by this
process's mounts, and by whether its system calls are filtered. Without a service manager
($INVOCATION_ID is not set) there is no line.

Invariant: no exception leaves this module. The exception that is explained is the app's own object.
"""

from __future__ import annotations

import errno
import os

from taskd.paths import MORE
from taskd.posix import mounts

_DEEPEST = 10
_HOW = f"{MORE} has the line: put it in with `systemctl edit`, and restart the service"

_ERRNO = OSError.__dict__["errno"]
_FILENAME = OSError.__dict__["filename"]
"""The attributes themselves: a class of the app's may have others of these names."""


def explained(exception: BaseException) -> str:
    """The line, if the sandbox is likely to be the cause; else an empty text. The last system error
    among ``exception`` and its causes counts."""
    if not os.environ.get("INVOCATION_ID"):
        return ""
    try:
        at: BaseException | None = exception
        for _ in range(_DEEPEST):
            if at is None:
                break
            if issubclass(type(at), OSError):
                number, name = _ERRNO.__get__(at), _FILENAME.__get__(at)
                if number in (errno.EROFS, errno.EACCES, errno.EPERM):
                    found = _explained(number, os.path.abspath(os.fsdecode(name)) if name else "")
                    return f"(the service's sandbox: {found}; {_HOW})\n" if found else ""
            at = at.__cause__ or at.__context__
    except BaseException:
        pass
    return ""


def _explained(number: int, path: str) -> str:
    if number == errno.EPERM:
        with open("/proc/self/status", encoding="utf-8") as file:
            mode = next((line.split()[1] for line in file if line.startswith("Seccomp:")), "0")
        if mode != "2":
            return ""
        return (
            "maybe one of the calls that SystemCallFilter= refuses, such as chown, nice and mount"
        )
    if not path:
        return ""
    mount = mounts.on_the_way(path, mounts.table())[-1]
    # Read-only at this place alone: the file system itself can be written to.
    if number == errno.EROFS and "ro" in mount.options and "rw" in mount.super_options:
        return f"tasks may not write to {path}: ReadWritePaths= names directories where they may"
    # systemd mounts an empty directory over what it hides: /systemd/inaccessible/dir of /run or, in
    # a container, of another file system.
    if number == errno.EACCES and mount.root.endswith("/inaccessible/dir"):
        return f"it hides {mount.at}: ProtectHome= or the like"
    return ""

"""Starting another program without a fork in Python: posix_spawn, inheriting next to nothing.

The child gets its configuration as a memory file on descriptor 0, our stdout and stderr, a session
of its own, default signal handlers and an empty signal mask; every other descriptor is
close-on-exec. (Importing ``subprocess`` would take 25 ms.)
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping

from taskd.posix import native

LAUNCHER = "TASKD_LAUNCHER"
"""Environment variable that carries, over every exec, the path of the Python that `taskd run` was
started with (see ``revision.release``)."""

HANDED_OVER = "TASKD_HANDED_OVER"
"""Environment variable that the launcher sets for the daemon of a release: the release's Python."""

_OURS_ALONE = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS",
               "LISTEN_FDNAMES", LAUNCHER, HANDED_OVER, "TASKD_DETACHED", "TASKD_CONFIG",
               "TASKD_TASK_ID", "TASKD_ATTEMPT", "TASKD_REVISION", "TASKD_SCRATCH", "TASKD_SOCKET",
               "TASKD_RELEASE", "TASKD_PREVIOUS")  # fmt: skip
"""Environment variables that are for the master only, not for its children: workers and hooks get
values of their own. (A daemon that a task has started has those of that task.)"""


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment for a child, with ``extra`` and without what is for the master."""
    clean = {key: value for key, value in os.environ.items() if key not in _OURS_ALONE}
    return clean | dict(extra or {})


def memory_file(name: str, content: bytes) -> int:
    """A close-on-exec descriptor of a new memory file with ``content``, at offset 0."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        os.lseek(fd, 0, os.SEEK_SET)
    except OSError:
        native.close(fd)
        raise
    return fd


def spawn(
    argv: list[str], stdin: bytes, env: Mapping[str, str], stdout: int = 1, stderr: int = 2
) -> int:
    """Start ``argv`` with ``stdin`` as the content of descriptor 0; returns its pid.

    Raises OSError if the program cannot be started (ENOENT, EACCES, EAGAIN, …).
    """
    fd = memory_file("boot", stdin)
    try:
        return native.posix_spawn(
            argv[0],
            argv,
            env,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, fd, 0),
                (os.POSIX_SPAWN_DUP2, stdout, 1),
                (os.POSIX_SPAWN_DUP2, stderr, 2),
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=[s for s in signal.valid_signals() if s not in _UNCATCHABLE],
        )
    finally:
        native.close(fd)


_UNCATCHABLE = {signal.SIGKILL, signal.SIGSTOP}

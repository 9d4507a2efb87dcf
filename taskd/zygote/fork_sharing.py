"""State that forked workers share although it is meant for one process: descriptors that the app
has opened at import, temporary directories, and numpy's global random generator.

Runs in the zygote after the app's import, and in each worker that it forks.
"""

from __future__ import annotations

import fcntl
import os
import sys
import weakref
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from taskd.posix import descriptors
from taskd.record import Record

_MOST_NAMED = 5
_REMEDY = 'open what is needed in @taskd.on_worker_start or in the tasks, or set fork = "never"'


class Shared(Record):
    """The names of what workers would share: with whom connections are, files that are open to read
    and write, and event loops."""

    connections: list[str]
    files: list[str]
    loops: list[str]

    def refusal(self) -> str | None:
        """Why an app with ``connections_at_import = "refuse"`` is not taken; None: it is."""
        if not self.connections:
            return None
        return (
            f"it holds connections after its import and [app] setup ({_named(self.connections)}), "
            f"which its workers would share: one would get another's answer; {_REMEDY} "
            '([app] connections_at_import = "refuse")'
        )

    def warnings(self) -> list[str]:
        found = []
        if self.connections:
            found.append(
                f"the app opens connections at import ({_named(self.connections)}), which its "
                f"workers share: one may get another's answer; {_REMEDY}"
            )
        if self.files:
            found.append(
                f"the app opens files at import to read and write ({_named(self.files)}), which "
                f"its workers share: a database may be damaged; {_REMEDY}"
            )
        if self.loops:
            why = f"the app makes an event loop at import, which its workers share; {_REMEDY}"
            found.append(why)
        return found


def opened_since(before: Mapping[int, descriptors.File]) -> Shared:
    """What was opened since ``before``. Descriptors are compared by their files, since a number
    that was closed may have been given to another file."""
    connections: list[str] = []
    files: list[str] = []
    loops: list[str] = []
    for fd in [fd for fd, file in descriptors.opened().items() if before.get(fd) != file]:
        with suppress(OSError):
            name = os.readlink(f"/proc/self/fd/{fd}")
            if (peer := descriptors.peer(fd, streams_alone=True)) is not None:
                connections.append(peer)
            elif descriptors.is_file(fd):
                # Databases are opened to read and write; logs to write, other files to read.
                if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR:
                    files.append(name)
            elif "[eventpoll]" in name:
                loops.append(name)
    return Shared(connections, files, loops)


def _named(names: list[str]) -> str:
    names = sorted(set(names))
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


def keep_directories() -> None:
    """Keep the temporary directories that the app has made at import, which all workers use: Python
    would remove them at the end of the first worker."""
    kind = getattr(sys.modules.get("tempfile"), "TemporaryDirectory", None)
    with suppress(Exception):  # the app may have replaced it
        cleanup = kind._cleanup.__func__ if kind is not None else None
        finalizers: Any = weakref.finalize._registry  # type: ignore[attr-defined]
        for finalizer in list(finalizers):
            _, function, *_ = finalizer.peek() or (None, None)
            if cleanup is not None and getattr(function, "__func__", None) is cleanup:
                finalizer.atexit = False


def seed_numpy() -> None:
    """Seed numpy's global generator in a forked worker: else each worker would get the same
    numbers. (Python's own ``random`` seeds itself after a fork.)"""
    seed = getattr(sys.modules.get("numpy.random"), "seed", None)
    with suppress(Exception):  # the app may have replaced it
        if seed is not None:
            seed()

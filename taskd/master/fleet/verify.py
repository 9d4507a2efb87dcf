"""Checks what zygotes report of workers against what the kernel and the slots say.

Code of the app may send messages on its process's channel. So no message by itself ends an attempt
that may still run: the next attempt would run beside it. Each function raises ProtocolError for a
report that cannot be true (the sender loses the connection, and nothing else), and OSError if that
cannot be checked just now.
"""

from __future__ import annotations

from typing import Any

from taskd import log
from taskd.errors import ProtocolError
from taskd.master.fleet.revision import Revision
from taskd.master.fleet.worker import Worker
from taskd.model.worker import WorkerState
from taskd.posix import locks, process

ABOUT_WORKERS = frozenset({"forked", "unforked", "exited"})
"""The types of a zygote's messages about its workers."""


def zygote(revision: Revision, worker: Worker, message: dict[str, Any]) -> None:
    """Check a message of the zygote of ``revision`` about ``worker``."""
    if worker.revision is not revision:
        raise _untrue(worker, f"the zygote of {revision.name} speaks of another's worker")
    match message["type"]:
        case "forked":
            pid, start = message["pid"], message["start"]
            if worker.pid:
                is_it = worker.pid == pid and (0 in (start, worker.start) or worker.start == start)
            else:
                is_it = is_start_of(pid, start)
            if not is_it:
                raise _untrue(worker, "its zygote says that it is another process")
        case "unforked" if worker.state is not WorkerState.ASKED:
            raise _untrue(worker, "its zygote says that it never came to be")
        case "exited":
            death(worker)


def is_start_of(pid: int, start: int) -> bool:
    """Whether the process ``pid``, if it still exists, has this start time (0: not known)."""
    return start == 0 or process.start_time(pid) in (None, start)


def death(worker: Worker) -> None:
    """Check the report that the zygote has reaped the worker: then the kernel does not know the
    process any more. (It may not show a process of which threads still run: they hold the slot's
    lock.)"""
    is_locked = worker.slot_fd >= 0 and locks.holder(worker.slot_fd) == worker.pid
    if is_locked or not process.is_gone(worker.identity):
        raise _untrue(worker, "its zygote says that it is dead, and it lives")


def _untrue(worker: Worker, what: str) -> ProtocolError:
    log.warning("not believed", worker=worker.id, pid=worker.pid, what=what)
    return ProtocolError(what)

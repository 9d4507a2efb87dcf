"""What workers and zygotes say of attempts and deaths, held against what the kernel and slots say.

Any code of an app's may have got hold of its process's channel, so that no message by itself ends
an attempt that may still run: the next one would run beside it. Each function raises ProtocolError
for what cannot be true (the speaker loses the connection, and nothing else), OSError if it cannot
be looked at just now.
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
"""What a zygote says of its workers."""


def zygote(revision: Revision, worker: Worker, message: dict[str, Any]) -> None:
    """The zygote of ``revision`` speaks of ``worker``."""
    if worker.revision is not revision:
        raise _untrue(worker, f"the zygote of {revision.name} speaks of another's worker")
    match message["type"]:
        case "forked" if not _may_be(worker, message["pid"], message["start"]):
            raise _untrue(worker, "its zygote says that it is another process")
        case "unforked" if worker.state is not WorkerState.ASKED:
            raise _untrue(worker, "its zygote says that it never came to be")
        case "exited":
            death(worker)


def _may_be(worker: Worker, pid: int, start: int) -> bool:
    """Whether ``worker`` may be that process (start 0: not told)."""
    if worker.pid:
        return worker.pid == pid and (0 in (start, worker.start) or worker.start == start)
    return is_start_of(pid, start)


def is_start_of(pid: int, start: int) -> bool:
    """Whether that process, if there is one still, was started then (0: not told)."""
    return start == 0 or process.start_time(pid) in (None, start)


def death(worker: Worker) -> None:
    """Its zygote says that it is dead, having reaped it: the kernel knows of it no more. (A process
    shows as ended while threads of it go on: they hold the slot's lock.)"""
    is_locked = worker.slot_fd >= 0 and locks.holder(worker.slot_fd) == worker.pid
    if is_locked or not process.is_gone(worker.identity):
        raise _untrue(worker, "its zygote says that it is dead, and it lives")


def _untrue(worker: Worker, what: str) -> ProtocolError:
    log.warning("not believed", worker=worker.id, pid=worker.pid, what=what)
    return ProtocolError(what)

"""How long a process has been ready to run and got no CPU: what a busy machine takes from it.

Source: /proc/PID/task/TID/schedstat: nanoseconds on a CPU, and nanoseconds ready and waiting for
one. The kernel adds to the latter when a wait is over; one that lasts is told by the thread being
ready (state R) without having computed much. A kernel without that file (CONFIG_SCHED_INFO), or
with zeros in it (no CONFIG_SCHEDSTATS, delay accounting off), tells nothing: then nothing counts as
starved, and time on the clock is all there is.
"""

from __future__ import annotations

import os

from taskd.record import Record

_NANO = 1e-9


class Thread(Record):
    """Seconds that it has computed and has waited for a CPU; whether it does one of both now."""

    computed: float
    waited: float
    is_ready: bool


Threads = dict[int, Thread]

_NEW = Thread(0.0, 0.0, False)


def look(pid: int) -> Threads:
    """The threads of ``pid``, by number; none if there is no such process or it cannot be told
    (we are out of descriptors)."""
    found = {}
    try:
        for name in os.listdir(f"/proc/{pid}/task"):
            found[int(name)] = _thread(f"/proc/{pid}/task/{name}", pid == os.getpid())
    except (OSError, ValueError, IndexError):
        return {}
    return found


def _thread(path: str, is_ours: bool) -> Thread:
    """Of our own ones nothing is told by being ready: we are, since we look."""
    computed, waited = _read(f"{path}/schedstat").split()[:2]
    state = _read(f"{path}/stat").rpartition(b")")[2].split()[0]
    return Thread(int(computed) * _NANO, int(waited) * _NANO, state == b"R" and not is_ours)


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read()


def lost(before: Threads, now: Threads, passed: float) -> float:
    """Seconds between two looks, ``passed`` seconds apart, that the thread which starved most was
    without a CPU though it could have used one. Ours are among them, who have computed."""
    if not any(thread.computed for thread in now.values()):
        return 0.0
    found = (_lost(before.get(number, _NEW), thread, passed) for number, thread in now.items())
    return min(passed, max(found, default=0.0))


def _lost(before: Thread, now: Thread, passed: float) -> float:
    computed, waited = now.computed - before.computed, now.waited - before.waited
    if now.is_ready and computed < passed / 2:
        return max(waited, passed - computed)
    return waited

"""CPU starvation: how long a process was ready to run and got no CPU, on a busy machine.

Source: /proc/PID/task/TID/schedstat: nanoseconds on a CPU, and nanoseconds ready and waiting for a
CPU. The kernel adds a wait only when it is over; a wait that lasts shows as a thread that is ready
(state R) and has computed little. A kernel without that file (CONFIG_SCHED_INFO), or with zeros in
it (no CONFIG_SCHEDSTATS, delay accounting off), tells nothing: then no time counts as starved.
"""

from __future__ import annotations

import os

from taskd.record import Record

_NANO = 1e-9


class Thread(Record):
    """Seconds that a thread has computed and has waited for a CPU; whether it does either now."""

    computed: float
    waited: float
    is_ready: bool


Threads = dict[int, Thread]


def look(pid: int) -> Threads:
    """The threads of ``pid``, by number; none if there is no such process or it cannot be told
    (out of descriptors). Threads of this process do not count as ready: the one that looks is."""
    found = {}
    try:
        for name in os.listdir(f"/proc/{pid}/task"):
            path = f"/proc/{pid}/task/{name}"
            computed, waited = _read(f"{path}/schedstat").split()[:2]
            state = _read(f"{path}/stat").rpartition(b")")[2].split()[0]
            is_ready = state == b"R" and pid != os.getpid()
            found[int(name)] = Thread(int(computed) * _NANO, int(waited) * _NANO, is_ready)
    except (OSError, ValueError, IndexError):
        return {}
    return found


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read()


def lost(before: Threads, now: Threads, passed: float) -> float:
    """Seconds between two looks, ``passed`` seconds apart, in which the thread that starved most
    was ready and had no CPU. 0 where the kernel does not count: no thread has computed."""
    if not any(thread.computed for thread in now.values()):
        return 0.0
    most = 0.0
    for number, thread in now.items():
        earlier = before.get(number) or Thread(0.0, 0.0, False)
        computed, waited = thread.computed - earlier.computed, thread.waited - earlier.waited
        if thread.is_ready and computed < passed / 2:
            waited = max(waited, passed - computed)
        most = max(most, waited)
    return min(passed, most)

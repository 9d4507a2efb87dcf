"""How much memory a group of processes really uses, and how much there is for more.

Sources: proc(5), and the kernel's cgroup-v2.rst for the limits that a service manager sets. Cached
file pages count as available: the kernel gives them up when they are wanted.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

LARGE = 1 << 20
"""Bytes."""

_M_MMAP_THRESHOLD = -3  # malloc.h

CGROUPS = "/sys/fs/cgroup"


def of(pids: Iterable[int]) -> int | None:
    """Bytes that these processes use together, pages that they share counted once (PSS).

    None where the kernel does not tell (a process of another user).
    """
    import psutil

    total = 0
    for pid in pids:
        try:
            total += psutil.Process(pid).memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
        except psutil.AccessDenied:
            return None
    return total


def return_large() -> None:
    """From now on what is large is mapped for itself, and goes back to the system when it is freed.

    The GNU C library would do so with the first such block alone, and keep room for as much from
    then on, of each thread. To be called before there is one; costs nothing a second time.
    """
    if _done:
        return
    try:
        from taskd.posix import libc
    except (ImportError, OSError, MemoryError):  # no descriptor is free to import it: next time
        return
    _done.append(True)
    if libc.mallopt is not None:  # another C library does it anyway (musl)
        libc.mallopt(_M_MMAP_THRESHOLD, LARGE)


_done: list[bool] = []


def alone(pid: int) -> int | None:
    """Bytes that a process like this one takes when it shares no page with its children.

    Its proportional share (PSS) would be too little for one that has forked: what it shares with
    them copy-on-write counts in full here. None where the kernel does not tell.
    """
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii", errors="replace") as file:
            fields = _fields(file.read())
    except OSError:
        return None
    return max(fields.get("Pss", 0), fields.get("Anonymous", 0))


def available(proc: str = "/proc", cgroups: str = CGROUPS) -> int | None:
    """Bytes that new processes of ours can have: what the machine has to give, or what the limits
    of our control groups leave, whichever is less. None where the kernel does not tell."""
    free = _fields(_read(f"{proc}/meminfo") or "").get("MemAvailable")
    found = [free, *(_rest(group) for group in _groups(proc, cgroups))]
    return min((each for each in found if each is not None), default=None)


def _groups(proc: str, cgroups: str) -> list[str]:
    """The directories of our control group and of those that it is in (version 2 alone)."""
    lines = (_read(f"{proc}/self/cgroup") or "").splitlines()
    path = next((line[3:] for line in lines if line.startswith("0::")), None)
    if path is None:
        return []
    names = [name for name in path.split("/") if name]
    return [os.path.join(cgroups, *names[:depth]) for depth in range(len(names) + 1)]


def _rest(group: str) -> int | None:
    """What is left of this control group's limit; None if it has none."""
    limit, used = _read(f"{group}/memory.max"), _read(f"{group}/memory.current")
    if limit is None or used is None or not limit.strip().isdigit():
        return None  # "max": no limit
    stat = (_read(f"{group}/memory.stat") or "").splitlines()
    cached = next((int(line.split()[1]) for line in stat if line.startswith("inactive_file ")), 0)
    return max(0, int(limit) - int(used) + cached)


def _fields(text: str) -> dict[str, int]:
    """``Name:  123 kB`` in bytes."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if value.endswith(" kB"):
            found[name] = int(value[:-3]) * 1024
    return found


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None

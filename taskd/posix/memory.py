"""How much memory processes use, and how much is available for more.

Sources: proc(5), and the kernel's cgroup-v2.rst for the limits that a service manager sets. Cached
file pages count as available: the kernel drops them when memory is needed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

LARGE = 1 << 20
"""Bytes."""

_M_MMAP_THRESHOLD = -3  # malloc.h

CGROUPS = "/sys/fs/cgroup"


def of(pids: Iterable[int]) -> int | None:
    """Bytes that these processes use together; pages that they share count once (PSS).

    None if the kernel does not tell (a process of another user).
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
    """From now on malloc maps each block of LARGE bytes or more on its own, and free unmaps it.

    By default, the GNU C library does so with the first such block only, and from then on keeps as
    much memory for each thread. Call it before the first large block; a second call does nothing.
    """
    if _done:
        return
    try:
        from taskd.posix import libc
    except (ImportError, OSError, MemoryError):  # no descriptor is free for the import: next time
        return
    _done.append(True)
    if libc.mallopt is not None:  # another C library does it anyway (musl)
        libc.mallopt(_M_MMAP_THRESHOLD, LARGE)


_done: list[bool] = []


def alone(pid: int) -> int | None:
    """Bytes that process ``pid`` would take if it shared no page with its children.

    For a process that has forked, its proportional share (PSS) is too little: pages that it shares
    copy-on-write count in full here. None if the kernel does not tell.
    """
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii", errors="replace") as file:
            fields = _fields(file.read())
    except OSError:
        return None
    return max(fields.get("Pss", 0), fields.get("Anonymous", 0))


def available(proc: str = "/proc", cgroups: str = CGROUPS) -> int | None:
    """Bytes available to new processes of ours: of the machine, or below the limits of our control
    groups (version 2), whichever is less. None if the kernel does not tell."""
    found = [_fields(_read(f"{proc}/meminfo") or "").get("MemAvailable")]
    for line in (_read(f"{proc}/self/cgroup") or "").splitlines():
        if line.startswith("0::"):
            names = [name for name in line[3:].split("/") if name]
            groups = (os.path.join(cgroups, *names[:depth]) for depth in range(len(names) + 1))
            found.extend(map(_rest, groups))
    return min((each for each in found if each is not None), default=None)


def _rest(group: str) -> int | None:
    """Bytes left below this control group's limit; None if it has no limit."""
    limit, used = _read(f"{group}/memory.max"), _read(f"{group}/memory.current")
    if limit is None or used is None or not limit.strip().isdigit():
        return None  # "max": no limit
    stat = (_read(f"{group}/memory.stat") or "").splitlines()
    cached = next((int(line.split()[1]) for line in stat if line.startswith("inactive_file ")), 0)
    return max(0, int(limit) - int(used) + cached)


def _fields(text: str) -> dict[str, int]:
    """The values of lines like ``Name:  123 kB``, in bytes."""
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

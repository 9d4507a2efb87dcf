"""How much memory a group of processes really uses."""

from __future__ import annotations

from collections.abc import Iterable


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

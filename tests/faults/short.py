"""Processes without descriptors, for the tests of faults."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def no_descriptor_left(pid: int, free: int = 0) -> Iterator[None]:
    """That process may open ``free`` more descriptors and no other, until the end."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    first_free = next(n for n in range(max(used) + 2) if n not in used)
    limit, left = first_free, free
    while left:
        left -= limit not in used
        limit += 1
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        soft, hard = before
        with suppress(ProcessLookupError):  # it has ended meanwhile
            # not the hard limit, which it may have just now for a moment, and would take back
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (min(soft, hard - 1), hard))

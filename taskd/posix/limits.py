"""How many descriptors this process may have.

Imported before they run out: importing anything needs one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Iterator

from taskd.posix import native

SHORT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors of a process or a machine that has no more to give just now."""


_UNBOUNDED = 1 << 30


def can_open(count: int) -> bool:
    """Whether this process may have ``count`` more descriptors at once."""
    made: list[int] = []
    try:
        for _ in range(count):
            made.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return False
    finally:
        for fd in made:
            native.close(fd)
    return True


def most() -> int:
    """How many descriptors this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _UNBOUNDED if soft == resource.RLIM_INFINITY else soft


def left() -> int:
    """How many descriptors more this process may have; 0 where that cannot be told."""
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:  # which needs one itself
        return 0
    soft = most()
    return soft + 1 - sum(int(name) < soft for name in names)


@contextlib.contextmanager
def every_descriptor() -> Iterator[None]:
    """In the body, as many descriptors as there may be at most (the hard limit); after it those
    that are open stay so. For what must not fail for want of one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        if resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard):  # else somebody set another
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

"""The limit of open descriptors of this process.

Imported before descriptors run out: an import needs one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Iterator

from taskd.posix import native

SHORT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Transient errors: no descriptor or no memory is free."""


_UNBOUNDED = 1 << 30


def can_open(count: int) -> bool:
    """Whether this process can open ``count`` more descriptors."""
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
    """How many descriptors this process may have (the soft limit)."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _UNBOUNDED if soft == resource.RLIM_INFINITY else soft


def left() -> int:
    """How many more descriptors this process may open; 0 if that cannot be told."""
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:  # needs a descriptor itself
        return 0
    soft = most()
    return soft + 1 - sum(int(name) < soft for name in names)


@contextlib.contextmanager
def every_descriptor() -> Iterator[None]:
    """Raises the soft limit to the hard limit in the body, for code that must not fail with EMFILE.
    Descriptors opened in the body stay open after it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        if resource.getrlimit(resource.RLIMIT_NOFILE) == (
            hard,
            hard,
        ):  # else changed meanwhile
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

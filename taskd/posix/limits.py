"""How many descriptors this process may have.

Imported before they run out: importing anything needs one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Iterator

SHORT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors of a process or a machine that has no more to give just now."""


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
            os.close(fd)
    return True


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

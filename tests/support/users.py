"""Other users, for real: a piece of a test that runs in a process of another uid and its groups."""

from __future__ import annotations

import grp
import os
import pickle
import traceback
from collections.abc import Callable
from typing import Any

import taskd

STRANGER, OTHER = 54321, 54322
"""Users that are not in any file: the kernel does not mind."""


def groups_here(count: int) -> list[str]:
    """As many groups that exist here; neither root's nor our own."""
    found = [each.gr_name for each in grp.getgrall() if each.gr_gid not in (0, os.getgid())]
    assert len(found) >= count, "a system has more groups than that"
    return found[:count]


def gid(group: str) -> int:
    return grp.getgrnam(group).gr_gid


def as_user(uid: int, groups: list[int], act: Callable[[], Any]) -> Any:
    """What ``act`` gives (or raises) in a process of that user.

    What it raises besides taskd's own errors comes as an AssertionError with the traceback.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups(groups)
            os.setgid(uid)
            os.setuid(uid)
            answer = pickle.dumps((True, act()))
        except taskd.Error as error:
            answer = pickle.dumps((False, error))
        except BaseException:
            answer = pickle.dumps((False, AssertionError(traceback.format_exc())))
        with os.fdopen(write, "wb") as pipe:
            pipe.write(answer)
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        good, value = pickle.loads(pipe.read())
    os.waitpid(child, 0)
    if good:
        return value
    raise value

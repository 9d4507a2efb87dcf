"""Other users, for real: a piece of a test that runs in a process of another uid and its groups."""

from __future__ import annotations

import grp
import os
import pickle
import signal
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


class Beside:
    """``act`` in a process of that user, beside the test, until the test leaves the block.

    ``act`` gets a function that tells the test something: a text that ``told`` then has. Its end
    before that of the block is the test's failure, since it may have done nothing.
    """

    def __init__(self, uid: int, groups: list[int], act: Callable[[Callable[[str], None]], Any]):
        self._read, write = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            status = 1
            try:
                os.close(self._read)
                os.setgroups(groups)
                os.setgid(uid)
                os.setuid(uid)
                act(lambda text: (os.write(write, f"{text}\n".encode()), None)[1])
                status = 0
            except BaseException:
                os.write(write, traceback.format_exc().encode())
            os._exit(status)
        os.close(write)
        os.set_blocking(self._read, False)
        self._heard = b""

    @property
    def told(self) -> list[str]:
        try:
            while piece := os.read(self._read, 65536):
                self._heard += piece
        except BlockingIOError:
            pass
        return self._heard.decode().splitlines()

    def __enter__(self) -> Beside:
        return self

    def __exit__(self, *_: object) -> None:
        os.kill(self._pid, signal.SIGKILL)
        _, status = os.waitpid(self._pid, 0)
        told = self.told
        os.close(self._read)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, told

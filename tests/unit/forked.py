"""Run a function in a forked child of the test, which may fork, kill, and change itself at will.

What the function returns comes back pickled; what it raises fails the test. Whatever it leaves
running is killed: the child is a subreaper, and so finds it all.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import tempfile
import traceback
from collections.abc import Callable
from typing import TypeVar

from support import processes

from taskd.posix import process

T = TypeVar("T")

PATIENCE = 30
"""Seconds until a child that hangs is killed by SIGALRM."""


def in_child(function: Callable[[], T]) -> T:
    """What ``function`` returns in a child of this process. Raises AssertionError if it raised."""
    with tempfile.TemporaryFile() as file:
        pid = os.fork()
        if pid == 0:
            _be_child(function, file.fileno())
        _, status = os.waitpid(pid, 0)
        file.seek(0)
        raw = file.read()
    assert raw, f"the child ended without an answer; wait status {status}"
    outcome, value = pickle.loads(raw)
    assert outcome == "returned", value
    return value


def _be_child(function: Callable[[], T], write: int) -> None:
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(PATIENCE)
        process.become_subreaper()
        try:
            answer = "returned", function()
        except BaseException:
            answer = "raised", traceback.format_exc()
        _clean_up()
        with os.fdopen(write, "wb") as file:
            pickle.dump(answer, file)
    finally:
        os._exit(0)


def _clean_up() -> None:
    while left := processes.children(os.getpid()):
        for pid in left:
            with contextlib.suppress(ProcessLookupError, ChildProcessError, PermissionError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def fork(function: Callable[[], object]) -> int:
    """A child that runs ``function`` and exits with status 0; its pid."""
    pid = os.fork()
    if pid == 0:
        try:
            function()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return pid


def hang() -> None:
    """Never returns; only a signal ends it."""
    while True:
        signal.pause()

"""How tasks show the outside what they do: one line for each thing, in one append-only file.

Runs in workers, as a part of the app; taskd knows nothing of it. A line is written by one write to
a file opened with O_APPEND, so that the file's order is the order of what happened::

    NANOSECONDS \\t TASK \\t ATTEMPT \\t PID \\t RELEASE \\t EVENT \\t WHAT \\t VALUE \\n

Nanoseconds are CLOCK_MONOTONIC's. While an attempt runs it also holds a lock on a file of its
task's, which the kernel drops when the process dies: who finds it taken was started too early.
"""

import fcntl
import os
import time
from contextlib import contextmanager

from release_name import RELEASE


def tell(event, what="", value=""):
    task, attempt = os.environ["TASKD_TASK_ID"], os.environ["TASKD_ATTEMPT"]
    fields = (time.monotonic_ns(), task, attempt, os.getpid(), RELEASE, event, what, value)
    line = "\t".join(_plain(field) for field in fields) + "\n"
    fd = os.open(os.environ["STORM_EFFECTS"], os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        os.write(fd, line.encode())
    finally:
        os.close(fd)


def _plain(value):
    return str(value).replace("\t", " ").replace("\n", " ")[:300]


@contextmanager
def attempt(tag):
    """Around all that an attempt does."""
    claim = _claim()
    tell("attempt-begin", tag)
    if claim is None:
        tell("overlap", tag)
    ended = "returned"
    try:
        yield
    except BaseException as error:
        ended = f"{_kind(error)}: {type(error).__name__}: {error}"
        raise
    finally:
        tell("attempt-end", ended)
        if claim is not None:
            os.close(claim)


def _kind(error):
    return "raised" if isinstance(error, Exception) else "left"


def _claim():
    path = os.path.join(os.environ["STORM_CLAIMS"], os.environ["TASKD_TASK_ID"])
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd

"""A process that can make no other one, and no thread: by a control group, since no limit of a
user's holds for root."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from support.waiting import eventually

_MOUNTS = ("/sys/fs/cgroup/pids", "/sys/fs/cgroup/unified", "/sys/fs/cgroup")
"""Where the controller is: of version 1, or of version 2."""


@contextmanager
def no_process_more(pid: int) -> Iterator[None]:
    """What that process, and all that it has made or makes meanwhile, tries to make, it is refused
    with EAGAIN."""
    ours = _ours()
    group = os.path.join(ours, f"taskd-test-{uuid.uuid4().hex}")
    try:
        os.mkdir(group)
        _write(os.path.join(group, "pids.max"), "0")
    except OSError as error:
        with contextlib.suppress(OSError):
            os.rmdir(group)
        pytest.skip(f"no control group can be made here: {error}")
    try:
        _write(os.path.join(group, "cgroup.procs"), str(pid))
        yield
    finally:
        eventually(lambda: _is_removed(group, ours), "the group is empty")


def _ours() -> str:
    """The directory of this process's own group."""
    with open("/proc/self/cgroup", encoding="ascii") as file:
        lines = [line.strip().split(":", 2) for line in file]
    path = next((path for _, kinds, path in lines if kinds == "pids"), None)
    if path is None:
        path = next(path for _, kinds, path in lines if not kinds)
    found = [each for each in _MOUNTS if os.path.exists(os.path.join(each, "cgroup.procs"))]
    return os.path.join(found[0], path.lstrip("/")) if found else "/nowhere"


def _is_removed(group: str, ours: str) -> bool:
    with open(os.path.join(group, "cgroup.procs"), encoding="ascii") as file:
        for pid in file.read().split():
            with contextlib.suppress(ProcessLookupError):
                _write(os.path.join(ours, "cgroup.procs"), pid)
    try:
        os.rmdir(group)
    except OSError:
        return False
    return True


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)

"""A control group that has little memory, so that the kernel itself ends who takes too much."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest
from support.waiting import eventually

V1, V2 = "/sys/fs/cgroup/memory", "/sys/fs/cgroup"


@contextlib.contextmanager
def small_memory(size: int) -> Iterator[str]:
    """The path of its ``cgroup.procs``, to which a process writes its pid to be in it."""
    v1 = os.path.exists(f"{V1}/memory.limit_in_bytes")
    path = os.path.join(V1 if v1 else V2, f"taskd-test-{os.getpid()}")
    try:
        os.mkdir(path)
    except OSError as error:
        pytest.skip(f"needs the right to make a control group: {error}")
    try:
        try:
            _limit(path, "memory.limit_in_bytes" if v1 else "memory.max", size)
            with contextlib.suppress(OSError):  # no swap, or no accounting of it
                _limit(path, "memory.memsw.limit_in_bytes" if v1 else "memory.swap.max",
                       size if v1 else 0)  # fmt: skip
        except OSError as error:
            pytest.skip(f"needs a control group that can limit memory: {error}")
        yield os.path.join(path, "cgroup.procs")
    finally:
        eventually(lambda: _removed(path), "nothing is left in the control group")


def _limit(path: str, name: str, value: int) -> None:
    with open(os.path.join(path, name), "w", encoding="ascii") as file:
        file.write(str(value))


def _removed(path: str) -> bool:
    try:
        os.rmdir(path)
    except OSError:
        return False
    return True

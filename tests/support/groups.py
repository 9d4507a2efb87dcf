"""A control group that is delegated, and a daemon in it, as a service manager starts one."""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon
from support.waiting import eventually

from taskd.posix import cgroup

MARK = "user.delegate"


def mounted() -> Path:
    """Where control groups of version 2 are. Skips where there are none, or none may be made."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        words = line.split()
        is_mounted = words[words.index("-") + 1] == "cgroup2" and "rw" in words[5].split(",")
        if is_mounted and os.access(words[4], os.W_OK):
            return Path(words[4])
    pytest.skip("needs the right to make control groups of version 2")


def can_limit(place: Path) -> bool:
    """Whether groups of version 2 can limit memory and processes."""
    return {"memory", "pids"} <= set((place / "cgroup.controllers").read_text().split())


class GroupedDaemon(Daemon):
    """``group``: that of the daemon; its processes are in there, or below. ``start_in``: which of
    those below it is started in. ``bare``: it has no controllers, whatever the kernel has."""

    def __init__(self, bare: bool = False, **sections: Any) -> None:
        self._top = mounted() / f"taskd-test-{uuid.uuid4().hex}"
        self.group = self._top / "bare" if bare else self._top  # below one that hands down none
        self.group.mkdir(parents=True)
        os.setxattr(self.group, MARK, b"1")
        self.start_in = ""
        super().__init__(**sections)

    def command(self, *arguments: str) -> list[str]:
        script = 'echo 0 > "$0/cgroup.procs" && exec "$@"'
        group = str(self.group / self.start_in)
        return ["/bin/sh", "-c", script, group, *super().command(*arguments)]

    def workers(self) -> dict[str, set[int]]:
        """The workers' groups by name, and the processes in each."""
        found = {}
        for each in self.group.glob("worker-*"):
            with contextlib.suppress(OSError):  # it was removed just now
                found[each.name] = cgroup.members(str(each))
        return found

    def group_of(self, pid: int) -> str:
        """The name of the group that a process is in."""
        line = Path(f"/proc/{pid}/cgroup").read_text().splitlines()[-1]
        return line.rpartition("/")[2]

    def clean_up(self) -> None:
        super().clean_up()
        eventually(self._is_removed, "the daemon's control group is empty")

    def _is_removed(self) -> bool:
        cgroup.end(str(self._top))
        return cgroup.remove(str(self._top))

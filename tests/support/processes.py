"""Looking at real processes from the outside, by /proc alone.

A process belongs to a test if its environment at exec holds the test's marker; forked children
share it. A zombie has no environment any more, so those are found by their parents.
"""

from __future__ import annotations

import os
import signal
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from support.waiting import eventually


def state_and_parent(pid: int) -> tuple[str, int] | None:
    """The state letter and the parent of a process, or None if there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return fields[0], int(fields[1])


def is_alive(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    found = state_and_parent(pid)
    return found is not None and found[0] not in "ZX"


def title(pid: int) -> str:
    """What ps shows of it; empty if there is none."""
    try:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
            return file.read().rstrip("\0").replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def everything() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def marked(marker: str) -> list[int]:
    """The living processes that were started, at whatever remove, with this in their environment.

    ``marker``: a whole setting, NAME=value.
    """
    wanted = os.fsencode(marker)
    found = []
    for pid in everything():
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                has_it = wanted in file.read().split(b"\0")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if has_it and is_alive(pid):
            found.append(pid)
    return found


def children(parent: int) -> list[int]:
    """Its children, zombies included."""
    return [pid for pid in everything() if (s := state_and_parent(pid)) and s[1] == parent]


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """It does nothing meanwhile: a zygote, say, makes no worker beside those that there are."""
    os.kill(pid, signal.SIGSTOP)
    try:
        eventually(lambda: (state_and_parent(pid) or "Z")[0] in "TZX", "it has stopped")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def zombies(parents: list[int]) -> list[int]:
    """Dead children that one of ``parents`` has not reaped."""
    found = ((pid, state_and_parent(pid)) for pid in everything())
    return [pid for pid, s in found if s is not None and s[0] == "Z" and s[1] in parents]


def descriptors(pid: int) -> Counter[str]:
    """The open descriptors by kind, and by path where they have one; sockets just by kind."""
    found: Counter[str] = Counter()
    folder = f"/proc/{pid}/fd"
    for number in os.listdir(folder):
        try:
            name = os.readlink(f"{folder}/{number}")
            mode = os.stat(f"{folder}/{number}").st_mode
        except FileNotFoundError:
            continue
        if stat.S_ISSOCK(mode) or name.startswith("pipe:"):
            name = name.split(":")[0]
        found[name] += 1
    return found

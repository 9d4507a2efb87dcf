"""The daemon's processes, found from outside: by a marker in their environment, through /proc."""

from __future__ import annotations

import os
import signal
from typing import NamedTuple

ZYGOTE = "taskd.zygote"
"""Stands in the command line of a zygote that has just been started."""

TITLES = ("taskd: zygote", "taskd: worker")
"""How zygotes, and the workers that they fork, show themselves from then on."""


class Process(NamedTuple):
    """One process as it was just now; ``start`` tells it from a later one of the same pid."""

    pid: int
    start: int
    parent: int
    words: tuple[str, ...]


def marked(marker: str) -> list[Process]:
    """The living processes with ``marker`` (NAME=value) in their environment."""
    wanted = os.fsencode(marker)
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            process = _read(int(name), wanted)
            if process is not None:
                found.append(process)
    return found


def _read(pid: int, wanted: bytes) -> Process | None:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            if wanted not in file.read().split(b"\0"):
                return None
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = tuple(os.fsdecode(word) for word in file.read().split(b"\0"))
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            text = stat.read()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else Process(pid, int(fields[19]), int(fields[1]), words)


class Family:
    """The daemon's processes, told apart: one that was once seen as a worker stays one."""

    def __init__(self, marker: str) -> None:
        self._marker = marker
        self._workers: set[tuple[int, int]] = set()

    def look(self, master: int | None) -> tuple[list[Process], list[Process]]:
        """(the keepers: zygotes and whatever else the master started; the workers)"""
        found = {process.pid: process for process in marked(self._marker)}
        zygotes = {pid for pid, process in found.items() if _is_ours(process)}
        for pid in zygotes:
            parent = found.get(found[pid].parent)
            if parent is None or parent.pid not in zygotes:
                continue
            # A worker's own child shows itself as its worker does, from the fork to the exec.
            if parent.parent not in zygotes and parent[:2] not in self._workers:
                self._workers.add((pid, found[pid].start))
        workers = [found[pid] for pid in sorted(zygotes) if found[pid][:2] in self._workers]
        of_master = {pid for pid, process in found.items() if process.parent == master}
        keepers = sorted((zygotes | of_master) - {process.pid for process in workers})
        return [found[pid] for pid in keepers if pid != master], workers


def _is_ours(process: Process) -> bool:
    return ZYGOTE in process.words or process.words[0].startswith(TITLES)


def catches(pid: int, number: int) -> bool:
    """Whether the process has a handler for that signal."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            caught = next(int(line.split()[1], 16) for line in file if line.startswith("SigCgt"))
    except (FileNotFoundError, ProcessLookupError):
        return False
    return bool(caught >> (number - 1) & 1)


def send(process: Process, number: int) -> bool:
    """Signal it, unless it is gone meanwhile; whether it was there."""
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        now = _start(process.pid)
        if now != process.start:
            return False
        signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True


def _start(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(text[text.rindex(")") + 2 :].split()[19])

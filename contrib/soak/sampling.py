"""What the daemon uses, looked at from outside every few seconds: /proc and the sizes of files."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

from contrib.storm.manager import last_started
from contrib.storm.place import Place

PAGE = os.sysconf("SC_PAGE_SIZE")


class Sample(NamedTuple):
    """``at``: seconds since the beginning. ``memory``: resident bytes of the master; descriptors,
    threads and children are its too. The rest are bytes of files, and ``tasks`` how many had been
    acknowledged."""

    at: float
    descriptors: int
    memory: int
    threads: int
    children: int
    store: int
    log_ahead: int
    slots: int
    logs: int
    tasks: int


class Sampler(threading.Thread):
    """Takes samples until it is ended; none while there is no master."""

    def __init__(self, place: Place, every: float) -> None:
        super().__init__(daemon=True)
        self.samples: list[Sample] = []
        self._place = place
        self._every = every
        self._began = time.monotonic()
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(self._every):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it is being replaced
                self.samples.append(self._sample())

    def end(self) -> None:
        self._over.set()
        self.join()

    def _sample(self) -> Sample:
        pid = last_started(self._place)
        if pid is None:
            raise ProcessLookupError
        state = self._place.path("disk", "state")
        return Sample(
            at=time.monotonic() - self._began,
            descriptors=len(os.listdir(f"/proc/{pid}/fd")),
            memory=_memory(pid),
            threads=len(os.listdir(f"/proc/{pid}/task")),
            children=_children(pid),
            store=os.stat(os.path.join(state, "store.db")).st_size,
            log_ahead=_size(os.path.join(state, "store.db-wal")),
            slots=_used(os.path.join(state, "slots")),
            logs=_used(self._place.path("disk", "logs")),
            tasks=_count(self._place.seen("clients.jsonl"), b'"acknowledged"'),
        )


def _memory(pid: int) -> int:
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * PAGE


def _children(pid: int) -> int:
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return len(file.read().split())


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _used(folder: str) -> int:
    """Bytes that the files of a directory take on disk."""
    return sum(_blocks(entry) for entry in os.scandir(folder))


def _blocks(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


def _count(path: str, what: bytes) -> int:
    def lines() -> Iterator[bytes]:
        with open(path, "rb") as file:
            yield from file

    return sum(what in line for line in lines()) if os.path.exists(path) else 0

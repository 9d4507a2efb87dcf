"""Every descriptor that the master carries over an exec: its name, kind and owner.

The handoff passes exactly the ledger, and the new master closes what it does not claim. What is
not in here (the selector, the wakeup pipe, the store's files) is made anew by each master, and
close-on-exec. Invariant: every entry is close-on-exec except between ``open_for_exec`` and the
exec itself.
"""

from __future__ import annotations

import os
from enum import Enum

from taskd.record import Record


class Kind(str, Enum):
    """What a descriptor is; the new master checks that the kernel agrees."""

    LISTENER = "listener"
    CLIENT = "client"
    ZYGOTE = "zygote"
    WORKER = "worker"
    SLOT = "slot"
    LOCK = "lock"
    DIRECTORY = "directory"  # that is locked


LOCKS = frozenset({Kind.LOCK, Kind.DIRECTORY})
"""What is held for its lock alone."""


class Entry(Record):
    fd: int
    kind: Kind
    name: str


class Ledger:
    """Names are unique; an entry's owner drops it when it closes the descriptor."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def add(self, fd: int, kind: Kind, name: str) -> None:
        """Raises ValueError if the name is taken: two owners would close it twice."""
        if name in self._entries:
            raise ValueError(f"the ledger already has a descriptor named {name}")
        self._entries[name] = Entry(fd, kind, name)

    def drop(self, name: str) -> None:
        self._entries.pop(name, None)

    def entries(self) -> list[Entry]:
        return list(self._entries.values())

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __getitem__(self, name: str) -> int:
        return self._entries[name].fd

    def open_for_exec(self, also: int) -> None:
        """Clear close-on-exec on the ledger's descriptors and on ``also`` (the snapshot)."""
        for fd in (also, *(entry.fd for entry in self._entries.values())):
            os.set_inheritable(fd, True)

    def close_on_exec(self) -> None:
        """Set it again: after an exec that failed, or in the new image."""
        for entry in self._entries.values():
            os.set_inheritable(entry.fd, False)

"""The ledger: every descriptor that the master carries over an exec, with its name and kind.

It is put together at each exec from the parts that own descriptors (their ``carried``). The handoff
passes exactly the ledger, and the new master closes what it does not claim. Each master opens all
other descriptors itself (the selector, the wakeup pipe, the store's files), close-on-exec.
Invariant: every descriptor is close-on-exec except between ``open_for_exec`` and the exec itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
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
    DIRECTORY = "directory"  # the locked state directory


LOCKS = frozenset({Kind.LOCK, Kind.DIRECTORY})
"""Kinds that are held for their lock alone."""


class Entry(Record):
    fd: int
    kind: Kind
    name: str


def ledger(carried: Iterable[Entry]) -> list[Entry]:
    """Raises ValueError if two owners use one name: the new master could claim only one."""
    by_name: dict[str, Entry] = {}
    for entry in carried:
        if by_name.setdefault(entry.name, entry) is not entry:
            raise ValueError(f"two descriptors are named {entry.name}")
    return list(by_name.values())


def open_for_exec(entries: Iterable[Entry], also: int) -> None:
    """Clear close-on-exec on the ledger's descriptors and on ``also`` (the snapshot)."""
    for fd in (also, *(entry.fd for entry in entries)):
        os.set_inheritable(fd, True)


def close_on_exec(entries: Iterable[Entry]) -> None:
    """Set close-on-exec again: after an exec that failed, or in the new image."""
    for entry in entries:
        os.set_inheritable(entry.fd, False)

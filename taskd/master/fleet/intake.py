"""Bounds how much of what tasks have saved is on its way from their slots into the store.

Many tasks with large states may end or die at once. Each large slot is read in a turn of the loop
of its own, so that clients are served between two, and none while BOUND bytes wait for the disk:
until then a state is safe in its slot. Of an end or a death that has to wait nothing has happened
yet: it is told again (``wire.Later``), also behind an exec or a crash.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable

from taskd.master.loop import Later, Life, Loop
from taskd.posix import memory

BOUND = 32 << 20
"""Bytes that may wait for the disk before another large slot is read."""

LARGE = 256 * 1024
"""Bytes on the disk of a slot that is read in a turn of its own."""

_SECTOR = 512  # the unit of st_blocks, stat(2)


def size_on_disk(slot_fd: int) -> int:
    return os.fstat(slot_fd).st_blocks * _SECTOR if slot_fd >= 0 else 0


class Intake:
    """``bytes``: of states and results whose commit is under way, or is tried again.
    ``unrecorded``: ends that the store could not take, which a timer tries again."""

    def __init__(self, loop: Loop, life: Life) -> None:
        self._loop = loop
        self._life = life
        self.bytes = 0
        self.unrecorded = 0
        self._is_turn_used = False
        self._waiting: deque[Callable[[], None]] = deque()

    def admit(self, slot_fd: int) -> None:
        """Before a slot is read whose attempt is over. Raises Later if it has to wait."""
        if size_on_disk(slot_fd) <= LARGE:
            return
        if self._is_full:
            raise Later(self._waiting.append)
        memory.return_large()
        self._is_turn_used = True
        self._loop.soon(self._next)

    def once_admitted(self, slot_fd: int, action: Callable[[], None]) -> None:
        """``action`` now, or when there is room."""
        try:
            self.admit(slot_fd)
        except Later as later:
            later.when(lambda: self.once_admitted(slot_fd, action))
        else:
            action()

    @property
    def _is_full(self) -> bool:
        """A stop does not wait for a store that takes nothing: the next start reads the slots."""
        is_stuck = self._life.is_stopping and self.unrecorded > 0
        return self._is_turn_used or (self.bytes >= BOUND and not is_stuck)

    def hold(self, size: int) -> None:
        """So much was read, and is to be committed."""
        self.bytes += size

    def release(self, size: int) -> None:
        """That is committed."""
        self.bytes -= size
        self.look()

    def look(self) -> None:
        """What waits longest tries again, if there may be room; if it is not admitted then, it
        waits again."""
        if self._waiting and not self._is_full:
            self._loop.soon(self._waiting.popleft())
            self._loop.soon(self._next)

    def _next(self) -> None:
        """Another turn of the loop."""
        self._is_turn_used = False
        self.look()

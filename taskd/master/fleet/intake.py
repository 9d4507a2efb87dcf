"""Bounds the bytes of saved states and results that are on their way from slots into the store.

Many tasks with large states may end or die at once. The loop reads at most one large slot a turn,
so that clients are served in between, and none while BOUND bytes wait for the disk: until then a
state is safe in its slot. An end or a death that has to wait has had no effect yet: its message is
handled again (``wire.Later``), also after an exec or a crash.
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
"""Bytes on the disk above which a slot is large: the loop reads one such slot a turn."""

_SECTOR = 512  # the unit of st_blocks, stat(2)


class Intake:
    """``bytes``: of states and results that were read and are not committed yet. ``unrecorded``:
    how many ends the store could not take, which a timer tries again."""

    def __init__(self, loop: Loop, life: Life) -> None:
        self._loop = loop
        self._life = life
        self.bytes = 0
        self.unrecorded = 0
        self._is_turn_used = False
        self._waiting: deque[Callable[[], None]] = deque()

    def admit(self, slot_fd: int) -> None:
        """Called before the slot of an attempt that is over is read. Raises Later if that has to
        wait. A negative ``slot_fd``: there is no slot."""
        if slot_fd < 0 or os.fstat(slot_fd).st_blocks * _SECTOR <= LARGE:
            return
        if self._is_full:
            raise Later(self._waiting.append)
        memory.return_large()
        self._is_turn_used = True
        self._loop.soon(self._next)

    def once_admitted(self, slot_fd: int, action: Callable[[], None]) -> None:
        """Call ``action`` once the slot may be read: now or later."""
        try:
            self.admit(slot_fd)
        except Later as later:
            later.when(lambda: self.once_admitted(slot_fd, action))
        else:
            action()

    @property
    def _is_full(self) -> bool:
        """Whether a large slot has to wait. During a stop, not for a store that cannot commit: the
        next start reads the slots."""
        is_stuck = self._life.is_stopping and self.unrecorded > 0
        return self._is_turn_used or (self.bytes >= BOUND and not is_stuck)

    def release(self, size: int) -> None:
        """So many of ``bytes`` are committed."""
        self.bytes -= size
        self.look()

    def look(self) -> None:
        """If there may be room, have the slot that has waited longest ask again."""
        if self._waiting and not self._is_full:
            self._loop.soon(self._waiting.popleft())
            self._loop.soon(self._next)

    def _next(self) -> None:
        """The loop's next turn."""
        self._is_turn_used = False
        self.look()

"""Warns the task's author of a ``ctx.state`` that is large and written often.

Pure; runs in workers. The state is written whole whenever it has changed (so that it never
disagrees with the cursor beside it): one that grows a little with each item costs the square of
the number of items.
"""

from __future__ import annotations

LARGE = 64 * 1024
"""Bytes of a state from which on its writes are counted."""

OFTEN = 16
"""Times that a large state is written before the warning …"""

MUCH = 64 * 1024 * 1024
"""… and bytes in all."""


class StateCost:
    """Counts the writes of one attempt."""

    _bytes = _times = 0
    _is_told = False

    def wrote(self, size: int) -> str | None:
        """Count a write of ``size`` bytes. Returns the warning, once an attempt, if it is due."""
        if size < LARGE or self._is_told:
            return None
        self._bytes += size
        self._times += 1
        if self._times < OFTEN or self._bytes < MUCH:
            return None
        self._is_told = True
        return (
            f"ctx.state takes {size:,} bytes by now and was written {self._times:,} times, "
            f"{self._bytes:,} bytes in all: it is written whole with each item, step and "
            "checkpoint that has changed it. Append what grows to a file below ctx.scratch, and "
            "keep only how far that is valid in ctx.state"
        )

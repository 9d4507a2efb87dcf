"""``Saved`` whose values stay the bytes that users saved: for the master, which adds up what a dead
worker's records say and hands it on, and never builds a user's value to do so.

Pure. Same records, same full state, byte for byte; the time it takes is that of copying them. What
is wrong within a value is found by the worker that decodes it, and holds its task.
"""

from __future__ import annotations

from typing import Any

from taskd.protocol.saved import Saved


class RawSaved(Saved):
    """``steps``, each mark's ``cursor``, ``state`` and ``args`` are in plain-data encoding."""

    __slots__ = ()

    @staticmethod
    def _decoded(raw: Any) -> bytes:
        if type(raw) is not bytes:
            raise TypeError("a value is no byte string")
        return raw

    @staticmethod
    def _encoded(value: Any, what: str = "value") -> bytes:
        return RawSaved._decoded(value)

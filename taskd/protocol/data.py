"""Plain data: the values users save, pass and return, as CBOR with defined tags.

Allowed: None, bool, int, float, str, bytes, list, tuple, dict, set, datetime, date, Decimal,
UUID, nested at most DEPTH deep. What comes back is equal and of the same types (NaN equals NaN).
"""

from __future__ import annotations

from typing import Any

DEPTH = 64
CURSOR_LIMIT = 64 * 1024
RESULT_LIMIT = 1024 * 1024
ARGUMENTS_LIMIT = 1024 * 1024
SAVED_LIMIT = 16 * 1024 * 1024


def encode(value: Any, what: str = "value", limit: int | None = None) -> bytes:
    """``value`` as bytes, proven to round-trip. Raises errors.NotPlainData saying where and why."""
    raise NotImplementedError


def decode(raw: bytes) -> Any:
    """The value of ``encode``'s bytes. Raises errors.ProtocolError on anything else."""
    raise NotImplementedError

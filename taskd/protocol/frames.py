"""Length-prefixed messages: four bytes of length (big-endian), then one CBOR map without tags."""

from __future__ import annotations

from typing import Any

LIMIT = 2 * 1024 * 1024
"""Bytes in one frame's body at most."""


def encode(message: dict[str, Any]) -> bytes:
    """One frame. Raises errors.ProtocolError if the body passes LIMIT."""
    raise NotImplementedError


class Decoder:
    """Bytes in, messages out; keeps a partial frame until the rest of it comes.

    ``rest`` is what was fed and not yet returned: it is carried over an exec and fed again.
    """

    def feed(self, data: bytes) -> None: ...

    def next(self) -> dict[str, Any] | None:
        """The next whole message, or None. Raises errors.ProtocolError for a broken one."""
        raise NotImplementedError

    @property
    def rest(self) -> bytes:
        raise NotImplementedError

"""CBOR without tags: the one decoder of what taskd's own processes say and keep.

Pure; runs everywhere. Used for frames, the slot's records, the handoff's snapshot, a zygote's boot
map and record, and what the store packs. ``data`` decodes users' values with it, and tags of its
own. Lengths are definite, no key stands twice in a map, and nesting is bounded. A tag is refused
before what it holds is built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import BytesIO
from types import NoneType
from typing import Any

from cbor2 import CBORDecoder, CBORError, loads as _loads

from taskd.errors import ProtocolError

DEPTH = 64
"""Maps and arrays within each other at most."""

INT_BYTES = 1024
"""The largest int of plain data. JSON and print stay quick and within Python's limit on digits."""

NATIVE = frozenset((NoneType, bool, int, float, str, bytes))
"""Types without parts that CBOR has itself: nothing but the type has to be checked."""

Tags = Mapping[int, Callable[[Any, bool], Any]]
"""Tag to decoder: it gets what the tag holds, and whether a hashable value is needed."""


class NoTags(dict[int, Callable[[Any, bool], Any]]):
    """Refuses every tag; cbor2 asks here before its own decoders."""

    def __missing__(self, tag: int) -> Callable[[Any, bool], Any]:
        raise ValueError(f"CBOR tag {tag} is not allowed")


_NO_TAGS = NoTags()

_DECODING = (CBORError, UnicodeDecodeError, TypeError, ValueError, OverflowError)

_OF_DATA = (CBORError, ArithmeticError, LookupError, RecursionError, TypeError, ValueError)
"""What a decoder's callback raises of the data."""


def loads(raw: bytes, depth: int = DEPTH) -> Any:
    """The value at the beginning of ``raw``. Raises errors.ProtocolError with the reason.

    Twice as fast as ``decode``, which also refuses bytes behind the value: for what has a checksum,
    or was written by this user's processes alone.
    """
    try:
        return _loads(
            raw,
            semantic_decoders=_NO_TAGS,
            max_depth=depth,
            allow_indefinite=False,
            allow_duplicate_keys=False,
        )
    except _DECODING as error:
        raise _refusal(error) from None


def decode(
    raw: bytes,
    depth: int = DEPTH,
    tags: Tags = _NO_TAGS,
    on_map: Callable[[Mapping[Any, Any], bool], Any] | None = None,
) -> Any:
    """The value that ``raw`` is, no byte more. Raises errors.ProtocolError with the reason.

    ``tags``: the decoders of those that are allowed. ``on_map``: what takes each map's place.
    """
    stream = BytesIO(raw)
    try:
        value = CBORDecoder(
            stream,
            semantic_decoders=tags,
            object_hook=on_map,
            max_depth=depth,
            allow_indefinite=False,
            allow_duplicate_keys=False,
        ).decode()
    except _DECODING as error:
        raise _refusal(error) from None
    if stream.tell() != len(raw):
        raise ProtocolError("there are bytes behind the value")
    return value


def _refusal(error: Exception) -> ProtocolError:
    """What to raise of ``error``, in words. Of what strikes in a decoder's callback (Ctrl-C, an
    exception of a signal handler) cbor2 makes an error of the message: it is raised as it was."""
    if error.__cause__ is not None and not isinstance(error.__cause__, _OF_DATA):
        raise error.__cause__
    return ProtocolError(str(error.__cause__ or error))

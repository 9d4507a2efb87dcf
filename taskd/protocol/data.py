"""Plain data: the values users save, pass and return, as CBOR with defined tags.

Used by clients (arguments), workers (cursors, steps, state, results) and, seldom, the master.

Allowed: None, bool, int, float, str, bytes, list, tuple, dict, set, datetime, date, Decimal,
UUID, Secret, nested at most DEPTH deep. What comes back is equal and of the same types (NaN equals
NaN).

Format (CBOR, RFC 8949, definite lengths only; the tags are defined in ``tags``)
    None, bool, int below 2**64, float, str, bytes, list, dict: CBOR's own items
    tag 2, 3      a larger int, at most INT_BYTES bytes, in its shortest form
    tag 0         datetime in a zone with one UTC offset, in whole seconds: ISO 8601 text. The
                  offset is kept, the zone's name not
    tag 37        UUID: 16 bytes
    tag 258       set: array
    tag 1004      date: ISO 8601 text
    tag 54101     tuple: array; within a key or a set member the tag may be missing
    tag 54102     datetime without a zone: ISO 8601 text; "~" behind it stands for fold=1
    tag 54103     Decimal: its text, exact, with exponent, NaN and infinities
    tag 54104     Secret: text or bytes (see ``secret``)
Every other tag is refused before anything is built from it; so are simple values other than
true, false and null, a repeated key and bytes behind the value. The only user code that runs here
is a zone's ``utcoffset``, when a datetime is encoded.

Why ``encode`` proves the round trip without decoding: it passes a value only if every part of it
is *exactly* of a type listed above, never of a subclass. For each such type the encoding above
carries all that equality looks at, so decode(encode(x)) equals x, type for type; the property
tests hold the two functions to that. What a type does not show is checked apart: text is valid
Unicode, an int is not too large, a datetime's zone has one UTC offset that ISO 8601 can write (a
zone such as Europe/Berlin would lose more than that). No other thread may change the value
meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from cbor2 import CBOREncodeError, dumps

from taskd.errors import NotPlainData, ProtocolError
from taskd.protocol import cbor
from taskd.protocol.cbor import DEPTH, INT_BYTES, NATIVE

CURSOR_LIMIT = 64 * 1024
RESULT_LIMIT = 1024 * 1024
ARGUMENTS_LIMIT = 1024 * 1024
SAVED_LIMIT = 16 * 1024 * 1024

MOST_ITEMS = SAVED_LIMIT
"""Items in one value, however they are shared: bounds the walk over lists that hold each other."""

_LARGE_INT_MARKS = (b"\xc2\x59", b"\xc2\x5a", b"\xc2\x5b", b"\xc3\x59", b"\xc3\x5a", b"\xc3\x5b")
"""How an int of 256 bytes or more begins. Other bytes may look like it: ``notplain`` looks."""

_holds_native: Callable[[Iterable[type]], bool] = NATIVE.issuperset


def encode(value: Any, what: str = "value", limit: int | None = None) -> bytes:
    """``value`` as bytes, proven to round-trip.

    ``what`` names the value in errors; ``limit`` is the most bytes it may take. Raises
    errors.NotPlainData saying which part of it is wrong, why, and what to use instead.
    """
    room = MOST_ITEMS if limit is None else limit  # an item takes a byte or more
    raw = None
    try:
        if _is_simple(value):
            raw = dumps(value)
        elif _fits(value, DEPTH, walk := _Walk(room)):
            if walk.is_tagged:
                from taskd.protocol.tags import ENCODERS

                raw = dumps(value, encoders=ENCODERS)
            else:
                raw = dumps(value)
    except (CBOREncodeError, ValueError):
        pass  # the slow look says where and why
    if raw is None or (
        INT_BYTES < len(raw) <= room and any(mark in raw for mark in _LARGE_INT_MARKS)
    ):
        from taskd.protocol.notplain import complaint

        if (text := complaint(value, what, room)) is not None:
            raise NotPlainData(text) from None
    if raw is None:
        raise NotPlainData(f"{what} was changed while it was being saved")
    if limit is not None and len(raw) > limit:
        raise NotPlainData(
            f"{what} takes {len(raw):,} bytes when saved; the limit is {limit:,}. Put large data "
            "into a file (in a task: below ctx.scratch) and keep the file's path instead"
        )
    return raw


def decode(raw: bytes) -> Any:
    """The value of ``encode``'s bytes. Raises errors.ProtocolError on anything else."""
    try:  # a tag counts as a level here; _fits counts what users see
        value = cbor.decode(raw, 2 * DEPTH + 2, _allowed_tags)
    except ProtocolError as error:
        raise ProtocolError(f"not plain data: {error}") from None
    if type(value) not in NATIVE and not _fits(value, DEPTH, _Walk(MOST_ITEMS)):
        raise ProtocolError("not plain data: a value of a kind or a depth that is not allowed")
    return value


class _Tags(cbor.NoTags):
    """Tag to decoder; a tag that ``tags.DECODERS`` lacks is refused.

    The types behind the tags are imported when the first tag is met: the master hardly ever meets
    one, and each import at its start adds to the pause that clients see.
    """

    def __missing__(self, tag: int) -> Callable[[Any, bool], Any]:
        from taskd.protocol.tags import DECODERS

        return DECODERS.get(tag) or super().__missing__(tag)


_allowed_tags = _Tags()


def _is_simple(value: Any) -> bool:
    """Whether ``value`` is native, or a list or dict of natives: by far the most common."""
    kind = type(value)
    if kind is dict:
        return _holds_native(map(type, value)) and _holds_native(map(type, value.values()))
    return kind in NATIVE or (kind is list and _holds_native(map(type, value)))


class _Walk:
    """What one walk over a value counts.

    ``room``: items that may still come. ``is_tagged``: a tag is needed; encoding without tags takes
    half the time.
    """

    __slots__ = ("is_tagged", "room")

    def __init__(self, room: int) -> None:
        self.room = room
        self.is_tagged = False

    def takes(self, container: Any) -> bool:
        self.room -= len(container)
        return self.room >= 0


def _fits(value: Any, depth: int, walk: _Walk) -> bool:
    """Whether ``value`` is plain data, at most ``depth`` deep and with no more items than room."""
    kind = type(value)
    items: Iterable[Any] = value
    if kind is dict:
        if not _keys_fit(value, depth - 1, walk):
            return False
        items = value.values()
    elif kind is set:
        walk.is_tagged = True
        return depth > 0 and walk.takes(value) and _keys_fit(value, depth - 1, walk)
    elif kind is tuple:
        walk.is_tagged = True
    elif kind is not list:
        return kind in NATIVE or _is_leaf(kind, walk)
    if depth <= 0 or not walk.takes(value):
        return False
    return _holds_native(map(type, items)) or all(_fits(each, depth - 1, walk) for each in items)


def _keys_fit(keys: Iterable[Any], depth: int, walk: _Walk) -> bool:
    """Whether all ``keys`` (or set members) are plain data that can be told apart when decoded."""
    if _holds_native(map(type, keys)):
        return True
    from taskd.protocol.tags import has_fixed_offset

    for key in keys:
        kind = type(key)
        if kind is tuple:
            walk.is_tagged = True
            if depth <= 0 or not walk.takes(key) or not _keys_fit(key, depth - 1, walk):
                return False
        elif kind not in NATIVE and not (_is_leaf(kind, walk) and has_fixed_offset(key)):
            return False
    return True


def _is_leaf(kind: type, walk: _Walk) -> bool:
    from taskd.protocol.tags import LEAVES

    walk.is_tagged = True
    return kind in LEAVES

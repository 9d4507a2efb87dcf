"""The types of plain data that need a CBOR tag, how each is written and what is read back.

Used by ``data``, which imports this module when it meets the first such value. The tags stand in
``data``'s docstring; their numbers are on disk and on the wire and are never reused. Those above
54000 are taskd's own, the others are registered with IANA for the same use.

A decoder gets what stood inside the tag and whether a hashable value is needed (a key or a set
member). It takes exactly what the encoder writes and raises ValueError on anything else.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timezone
from decimal import Decimal, DecimalException
from functools import partial
from operator import attrgetter
from typing import Any
from uuid import UUID

from cbor2 import CBOREncoder

from taskd.protocol.cbor import INT_BYTES
from taskd.protocol.secret import Secret

AWARE, POSITIVE, NEGATIVE, UUID_TAG, SET, DATE = 0, 2, 3, 37, 258, 1004
TUPLE, NAIVE, DECIMAL, SECRET = 54101, 54102, 54103, 54104

LEAVES = frozenset((datetime, date, Decimal, UUID, Secret))
"""Types with a tag and without parts."""


def has_fixed_offset(value: Any) -> bool:
    """False for a datetime in a zone with changing offsets, such as Europe/Berlin.

    Its offset alone would be kept: a day later it would be another time than in the zone. (As keys,
    two such may be unequal and have one instant in common: Python calls every comparison with a
    repeated or skipped local hour unequal.) A zone says its offset without a date if it has one.
    """
    if type(value) is not datetime or value.tzinfo is None or type(value.tzinfo) is timezone:
        return True
    try:
        return value.tzinfo.utcoffset(None) == value.utcoffset()
    except Exception:  # of a zone's own code, asked without a date
        return False


def has_whole_offset(value: datetime) -> bool:
    """Whether it has a UTC offset, in whole seconds.

    Python writes an offset with a fraction, but does not read each one back (3.11 takes
    +00:00:00.000001 for UTC). No zone on earth has one.
    """
    offset = value.utcoffset()
    return offset is not None and offset.microseconds == 0


_WRITTEN: dict[type, tuple[int, Callable[[Any], Any]]] = {
    tuple: (TUPLE, list),
    set: (SET, list),
    date: (DATE, date.isoformat),
    Decimal: (DECIMAL, str),
    UUID: (UUID_TAG, attrgetter("bytes")),
    Secret: (SECRET, Secret.reveal),
}
"""The tag of each type, and what makes the value that stands in it; of datetimes see below."""


def _write(encoder: CBOREncoder, value: Any) -> None:
    tag, inside = _WRITTEN[type(value)]
    encoder.encode_semantic(tag, inside(value))


def _write_datetime(encoder: CBOREncoder, value: datetime) -> None:
    if value.tzinfo is None:
        encoder.encode_semantic(NAIVE, value.isoformat() + "~" * value.fold)
    elif has_whole_offset(value) and has_fixed_offset(value):
        encoder.encode_semantic(AWARE, value.isoformat())
    else:
        raise ValueError("a zone without a usable offset")  # told in words by notplain


ENCODERS: dict[type, Callable[[CBOREncoder, Any], None]] = {
    **dict.fromkeys(_WRITTEN, _write),
    datetime: _write_datetime,
}


def _expect(value: Any, what: str, form: str, *kinds: type) -> None:
    if type(value) not in kinds:
        raise ValueError(f"{what} is not written as {form}")


def _read_tuple(value: Any, hashable: bool) -> tuple[Any, ...]:
    _expect(value, "a tuple", "an array", list, tuple)
    return tuple(value)


def _read_set(value: Any, hashable: bool) -> set[Any]:
    _expect(value, "a set", "an array", list, tuple)
    if hashable:
        raise ValueError("a set cannot be a key or a member of a set")
    members = set(value)
    if len(members) != len(value):
        raise ValueError("a set has a member twice")
    return members


def _read_datetime(is_naive: bool, value: Any, hashable: bool) -> datetime:
    _expect(value, "a datetime", "text", str)
    moment = datetime.fromisoformat(value.removesuffix("~") if is_naive else value)
    if is_naive and moment.tzinfo is not None:
        raise ValueError("a datetime without a zone has one")
    if not is_naive and not has_whole_offset(moment):
        raise ValueError("a datetime with a zone has no offset in whole seconds")
    fold = "~" if is_naive and value.endswith("~") else ""
    if value != moment.isoformat() + fold:
        raise ValueError(f"{value[:60]!r} is not how a datetime is written")
    return moment.replace(fold=1) if fold else moment


def _read_text(kind: type, read: Callable[[str], Any], value: Any, hashable: bool) -> Any:
    """What is written as ``_WRITTEN`` has it, and in no other form of the same value."""
    _expect(value, f"a {kind.__name__}", "text", str)
    try:
        found = read(value)
    except DecimalException:
        raise ValueError(f"{value[:60]!r} is not a {kind.__name__}") from None
    if value != _WRITTEN[kind][1](found):
        raise ValueError(f"{value[:60]!r} is not how a {kind.__name__} is written")
    return found


def _read_uuid(value: Any, hashable: bool) -> UUID:
    _expect(value, "a UUID", "bytes", bytes)
    return UUID(bytes=value)


def _read_secret(value: Any, hashable: bool) -> Secret[Any]:
    _expect(value, "a Secret", "text or bytes", str, bytes)
    return Secret(value)


def _read_large(is_negative: bool, value: Any, hashable: bool) -> int:
    _expect(value, "a large int", "bytes", bytes)
    if not 9 <= len(value) <= INT_BYTES or value[0] == 0:
        raise ValueError(f"a large int takes 9 to {INT_BYTES} bytes, without zeros in front")
    magnitude = int.from_bytes(value, "big")
    return -1 - magnitude if is_negative else magnitude


DECODERS: dict[int, Callable[[Any, bool], Any]] = {
    AWARE: partial(_read_datetime, False),
    POSITIVE: partial(_read_large, False),
    NEGATIVE: partial(_read_large, True),
    UUID_TAG: _read_uuid,
    SET: _read_set,
    DATE: partial(_read_text, date, date.fromisoformat),
    TUPLE: _read_tuple,
    NAIVE: partial(_read_datetime, True),
    DECIMAL: partial(_read_text, Decimal, Decimal),
    SECRET: _read_secret,
}

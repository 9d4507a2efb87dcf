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
from typing import Any
from uuid import UUID

from cbor2 import CBOREncoder

from taskd.protocol.data import INT_BYTES
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


def _write_tuple(encoder: CBOREncoder, value: tuple[Any, ...]) -> None:
    encoder.encode_semantic(TUPLE, list(value))


def _write_set(encoder: CBOREncoder, value: set[Any]) -> None:
    encoder.encode_semantic(SET, list(value))


def _write_datetime(encoder: CBOREncoder, value: datetime) -> None:
    if value.tzinfo is None:
        encoder.encode_semantic(NAIVE, value.isoformat() + "~" * value.fold)
    elif has_whole_offset(value) and has_fixed_offset(value):
        encoder.encode_semantic(AWARE, value.isoformat())
    else:
        raise ValueError("a zone without a usable offset")  # told in words by notplain


def _write_date(encoder: CBOREncoder, value: date) -> None:
    encoder.encode_semantic(DATE, value.isoformat())


def _write_decimal(encoder: CBOREncoder, value: Decimal) -> None:
    encoder.encode_semantic(DECIMAL, str(value))


def _write_uuid(encoder: CBOREncoder, value: UUID) -> None:
    encoder.encode_semantic(UUID_TAG, value.bytes)


def _write_secret(encoder: CBOREncoder, value: Secret[Any]) -> None:
    encoder.encode_semantic(SECRET, value.reveal())


ENCODERS: dict[type, Callable[[CBOREncoder, Any], None]] = {
    tuple: _write_tuple,
    set: _write_set,
    datetime: _write_datetime,
    date: _write_date,
    Decimal: _write_decimal,
    UUID: _write_uuid,
    Secret: _write_secret,
}


def _expect(value: Any, kind: type, what: str) -> None:
    if type(value) is not kind:
        raise ValueError(f"{what} is not written as {kind.__name__}")


def _same(text: str, again: str, what: str) -> None:
    if text != again:
        raise ValueError(f"{text[:60]!r} is not how {what} is written")


def _read_items(value: Any, what: str) -> list[Any] | tuple[Any, ...]:
    if type(value) is not list and type(value) is not tuple:
        raise ValueError(f"{what} is not written as an array")
    return value


def _read_tuple(value: Any, hashable: bool) -> tuple[Any, ...]:
    return tuple(_read_items(value, "a tuple"))


def _read_set(value: Any, hashable: bool) -> set[Any]:
    items = _read_items(value, "a set")
    if hashable:
        raise ValueError("a set cannot be a key or a member of a set")
    members = set(items)
    if len(members) != len(items):
        raise ValueError("a set has a member twice")
    return members


def _read_naive(value: Any, hashable: bool) -> datetime:
    _expect(value, str, "a datetime")
    moment = datetime.fromisoformat(value.removesuffix("~"))
    moment = moment.replace(fold=1) if value.endswith("~") else moment
    if moment.tzinfo is not None:
        raise ValueError("a datetime without a zone has one")
    _same(value, moment.isoformat() + "~" * moment.fold, "a datetime")
    return moment


def _read_aware(value: Any, hashable: bool) -> datetime:
    _expect(value, str, "a datetime")
    moment = datetime.fromisoformat(value)
    if not has_whole_offset(moment):
        raise ValueError("a datetime with a zone has no offset in whole seconds")
    _same(value, moment.isoformat(), "a datetime")
    return moment


def _read_date(value: Any, hashable: bool) -> date:
    _expect(value, str, "a date")
    day = date.fromisoformat(value)
    _same(value, day.isoformat(), "a date")
    return day


def _read_decimal(value: Any, hashable: bool) -> Decimal:
    _expect(value, str, "a Decimal")
    try:
        number = Decimal(value)
    except DecimalException:
        raise ValueError(f"{value[:60]!r} is not a Decimal") from None
    _same(value, str(number), "a Decimal")
    return number


def _read_uuid(value: Any, hashable: bool) -> UUID:
    _expect(value, bytes, "a UUID")
    return UUID(bytes=value)


def _read_secret(value: Any, hashable: bool) -> Secret[Any]:
    if type(value) is not str and type(value) is not bytes:
        raise ValueError("a Secret is not written as text or bytes")
    return Secret(value)


def _magnitude(value: Any) -> int:
    _expect(value, bytes, "a large int")
    if not 9 <= len(value) <= INT_BYTES or value[0] == 0:
        raise ValueError(f"a large int takes 9 to {INT_BYTES} bytes, without zeros in front")
    return int.from_bytes(value, "big")


def _read_positive(value: Any, hashable: bool) -> int:
    return _magnitude(value)


def _read_negative(value: Any, hashable: bool) -> int:
    return -1 - _magnitude(value)


DECODERS: dict[int, Callable[[Any, bool], Any]] = {
    AWARE: _read_aware,
    POSITIVE: _read_positive,
    NEGATIVE: _read_negative,
    UUID_TAG: _read_uuid,
    SET: _read_set,
    DATE: _read_date,
    TUPLE: _read_tuple,
    NAIVE: _read_naive,
    DECIMAL: _read_decimal,
    SECRET: _read_secret,
}

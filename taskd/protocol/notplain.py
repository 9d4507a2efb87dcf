"""Why a value is not plain data, and what to use instead: one sentence for the user.

``data`` asks here once its fast walk has refused a value, or where every int has to be looked at:
slow and exact. Runs in clients and workers.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from taskd.errors import NotPlainData
from taskd.protocol import tags
from taskd.protocol.cbor import DEPTH, INT_BYTES, NATIVE

_ALLOWED = (
    "None, bool, int, float, str, bytes, list, tuple, dict, set, datetime, date, Decimal, UUID, "
    "Secret"
)

_BASES: tuple[tuple[str, str], ...] = (
    ("enum.Enum", "its .value"),
    ("builtins.bool", "bool(value)"),
    ("builtins.frozenset", "a set"),
    ("builtins.bytearray", "bytes(value)"),
    ("builtins.memoryview", "bytes(value)"),
    ("numpy.generic", "value.item()"),
    ("numpy.ndarray", "value.tolist()"),
    ("builtins.int", "int(value)"),
    ("builtins.float", "float(value)"),
    ("builtins.str", "str(value)"),
    ("builtins.bytes", "bytes(value)"),
    ("builtins.dict", "dict(value)"),
    ("builtins.list", "list(value)"),
    ("builtins.tuple", "tuple(value)"),
    ("builtins.set", "set(value)"),
    ("builtins.range", "list(value)"),
    ("builtins.complex", "the tuple (value.real, value.imag)"),
    ("datetime.datetime", "a plain datetime"),
    ("datetime.date", "a plain date"),
    ("datetime.timedelta", "value.total_seconds()"),
    ("datetime.time", "value.isoformat()"),
    ("datetime.tzinfo", "the zone's name"),
    ("decimal.Decimal", "Decimal(value)"),
    ("fractions.Fraction", "the tuple (value.numerator, value.denominator)"),
    ("pathlib.PurePath", "str(value)"),
    ("uuid.UUID", "UUID(int=value.int)"),
)


def complaint(value: Any, what: str, room: int) -> str | None:
    """The first thing that keeps ``value`` from being plain data, or None.

    ``what`` is the user's name for the value, ``room`` how many items it may hold. Looks at every
    part: types, depth, cycles, count of items, text, size of ints, zones.
    """
    try:
        _Walk(room).visit(value, what, ())
    except NotPlainData as bad:
        return str(bad)
    return None


class _Walk:
    """One walk over a whole value; ``room`` is how many items may still come."""

    def __init__(self, room: int) -> None:
        self.limit = self.room = room

    def visit(self, value: Any, path: str, above: tuple[int, ...]) -> None:
        kind = type(value)
        if kind in (list, tuple, dict, set):
            self._enter(value, path, above)
            for part, where in _parts(value, path):
                self.visit(part, where, (*above, id(value)))
        elif kind is int:
            bits = (value if value >= 0 else -1 - value).bit_length()
            if bits > 8 * INT_BYTES:
                raise NotPlainData(
                    f"{_short(path)} is an int of {value.bit_length():,} bits; at most "
                    f"{8 * INT_BYTES:,} are allowed. Use its bytes: value.to_bytes(...)"
                )
        elif kind is str:
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise NotPlainData(
                    f"{_short(path)} is text that is not valid Unicode (a lone surrogate at "
                    f"position {error.start}). Use bytes; for a file's name os.fsencode(name)"
                ) from None
        elif kind is datetime:
            _check_zone(value, path)
        elif kind not in NATIVE and kind not in tags.LEAVES:
            module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
            raise NotPlainData(
                f"{_short(path)} is of type {module}{kind.__name__}, which cannot be saved. Use "
                f"{_instead(kind)}; allowed are exactly {_ALLOWED}, not subclasses of them"
            )

    def _enter(self, value: Any, path: str, above: tuple[int, ...]) -> None:
        if id(value) in above:
            raise NotPlainData(f"{_short(path)} contains itself; plain data cannot")
        if len(above) >= DEPTH:
            raise NotPlainData(
                f"{_short(path)} is nested more than {DEPTH} levels deep; "
                "keep a flatter form, such as a list of rows"
            )
        self.room -= len(value)
        if self.room < 0:
            raise NotPlainData(f"{_short(path)}: more than {self.limit:,} items in one value")


def _parts(value: Any, path: str) -> Iterator[tuple[Any, str]]:
    """Each part with the path that names it."""
    if type(value) is set:
        for member in value:
            yield member, f"the member {_brief(member)} of {path}"
    elif type(value) is dict:
        for key, item in value.items():
            yield key, f"the key {_brief(key)} of {path}"
            yield item, f"{path}[{_brief(key)}]"
    else:
        for index, item in enumerate(value):
            yield item, f"{path}[{index}]"


def _brief(value: Any) -> str:
    if type(value) is str:
        text = value if len(value) <= 40 else value[:37] + "..."
        return '"' + text.encode("ascii", "backslashreplace").decode().replace('"', '\\"') + '"'
    if type(value) in (bool, int, float, bytes):
        text = hex(value) if type(value) is int and value.bit_length() > 64 else repr(value)
        return text if len(text) <= 40 else text[:37] + "..."
    return f"of type {type(value).__name__}"


def _short(path: str) -> str:
    return path if len(path) <= 200 else f"{path[:90]} … {path[-90:]}"


def _check_zone(value: datetime, path: str) -> None:
    if value.tzinfo is None:
        return
    if value.utcoffset() is None:
        raise NotPlainData(
            f"{_short(path)} is a datetime whose zone gives no UTC offset. "
            "Use value.replace(tzinfo=None), or a zone with an offset"
        )
    if not tags.has_whole_offset(value):
        raise NotPlainData(
            f"{_short(path)} is a datetime whose UTC offset is not in whole seconds. "
            "Use value.astimezone(timezone.utc)"
        )
    if not tags.has_fixed_offset(value):
        raise NotPlainData(
            f"{_short(path)} is a datetime in a zone whose offset changes, and a zone is not kept. "
            "Use value.astimezone(timezone.utc), and the zone's name as a text beside it where "
            "local time matters"
        )


def _instead(kind: type) -> str:
    if hasattr(kind, "__dataclass_fields__"):
        return "dataclasses.asdict(value)"
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return "tuple(value) or value._asdict()"
    names = {f"{base.__module__.partition('.')[0]}.{base.__qualname__}" for base in kind.__mro__}
    for name, instead in _BASES:
        if name in names:
            return instead
    if hasattr(kind, "__next__"):
        return "list(value)"
    return "a dict of what is needed from it"

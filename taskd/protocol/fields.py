"""Checks a map of fields against a table of what each of them may be.

Pure. Used for clients' requests, the messages to the master, the records in a slot, and what is
read into a ``Record``. Fields that the table lacks are left out. An error says which field is
wrong, what it must be and what it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any, TypeVar

from taskd.errors import ProtocolError
from taskd.record import Record

R = TypeVar("R")

_LARGEST = 2**63 - 1
"""No larger whole number can be stored, nor a smaller one than its negative."""


class Field(Record):
    """What one field must be.

    ``kind``: its type; where that is float, an int will do. ``low`` and ``high`` bound a number's
    value and anything else's length; ``size``: bytes that a text may take in UTF-8. ``required``:
    it must be there; if it is not, null counts as absent. ``null``: null is a value of its own.
    ``each``: what the items of a list are, or the table of a map. ``among``: the texts that are
    allowed. ``since``: the version of the protocol that brought it; 0: every one that is spoken has
    it.
    """

    kind: type
    low: float = -inf
    high: float = inf
    required: bool = False
    each: Field | Mapping[str, Field] | None = None
    among: frozenset[str] | None = None
    since: int = 0
    size: float = inf
    null: bool = False


Fields = Mapping[str, Field]


def check(found: Mapping[str, Any], wanted: Fields, path: str = "") -> dict[str, Any]:
    """The fields of ``found`` that ``wanted`` has, without those that are absent.

    ``path`` stands before a field's name in errors. Raises errors.ProtocolError.
    """
    checked = {}
    for name, field in wanted.items():
        value = found.get(name)
        if value is not None:
            checked[name] = _check_value(value, field, path + name)
        elif field.null and name in found:
            checked[name] = None
        elif field.required:
            raise ProtocolError(f"{path}{name} is missing")
    return checked


def read(kind: type[R], found: Any) -> R:
    """The record of class ``kind`` in a map; a field with a default may be absent.

    A field's type is what its annotation begins with; what stands within a list or a map is not
    looked at. Raises errors.ProtocolError.
    """
    if type(found) is not dict:
        raise ProtocolError(f"a map is expected, not {type(found).__name__}")
    optional = vars(kind)["_field_defaults"]
    wanted = {
        name: Field(_TYPES[text.split(" ")[0].split("[")[0]], required=name not in optional)
        for name, text in kind.__annotations__.items()
    }
    return kind(**check(found, wanted))


def _check_value(value: Any, field: Field, path: str) -> Any:
    kind = type(value)
    if kind is not field.kind and not (field.kind is float and kind is int):
        raise ProtocolError(f"{path} must be {_wording(field)}, not {kind.__name__}")
    if field.among is not None and value not in field.among:
        raise ProtocolError(f"{path} must be {_wording(field)}, not {value[:60]!r}")
    if kind is bool:
        return value
    extent = value if kind is int or kind is float else len(value)
    if not field.low <= extent <= field.high:
        is_ = str(value) if extent is value else f"of length {extent:,}"
        raise ProtocolError(f"{path} must be {_wording(field)}; it is {is_}")
    if kind is int and abs(value) > _LARGEST:
        raise ProtocolError(f"{path} is {value}, which is too large to be stored")
    if kind is str and (field.size < inf or not value.isascii()):
        _check_text(value, field.size, path)
    each = field.each
    if isinstance(each, Field):
        return [_check_value(item, each, f"{path}[{n}]") for n, item in enumerate(value)]
    return value if each is None else check(value, each, f"{path}.")


def _check_text(value: str, size: float, path: str) -> None:
    """Half of a surrogate pair is a character to Python and has no form in UTF-8: Python makes such
    text of undecodable bytes, in a file's name or on a command line."""
    try:
        taken = len(value.encode())
    except UnicodeEncodeError as error:
        wrong = value[error.start]
        raise ProtocolError(f"{path} must be text; {wrong!r} in it is no character") from None
    if taken > size:
        raise ProtocolError(f"{path} passes the limit of {size:,} bytes")


_NOUNS = {
    int: ("an int", ""),
    float: ("a number", ""),
    str: ("text", " characters"),
    bytes: ("bytes", ""),
    list: ("a list", " items"),
    dict: ("a map", ""),
    bool: ("true or false", ""),
}

_TYPES = {kind.__name__: kind for kind in _NOUNS}


def _wording(field: Field) -> str:
    """What a field must be, in words."""
    if field.among is not None:
        return "one of " + ", ".join(sorted(field.among))
    noun, unit = _NOUNS[field.kind]
    if (field.low, field.high) == (-inf, inf):
        return noun
    low, high = f"{field.low:,}", f"{field.high:,}"
    if field.kind is bytes:
        return f"{low} bytes" if low == high else f"{low} to {high} bytes"
    return f"{noun} {'from' if field.kind in (int, float) else 'of'} {low} to {high}{unit}"

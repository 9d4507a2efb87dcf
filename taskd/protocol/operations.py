"""What each request of the client protocol may hold: one table, and the check by it.

Pure; used by both ends. ``control`` describes what the operations do. The daemon checks what it
receives (a peer that sends something else has broken the protocol), the client library what it
is about to send.
"""

from __future__ import annotations

from math import inf
from typing import Any

from taskd.errors import ProtocolError
from taskd.model.task import OnDeploy, State
from taskd.protocol.data import ARGUMENTS_LIMIT
from taskd.record import Record

MAX_BATCH = 1000
"""Tasks in one submit request."""

MAX_WATCHED = 10_000
"""Tasks in one follow or wait request."""

MAX_LISTED = 1000
"""Tasks that one list request may ask for."""

_ID_MAX = 2**63 - 1
_PRIORITY_MAX = 2**31 - 1
_DELAY_MAX = 100 * 366 * 86400.0


class Field(Record):
    """One field: its type and bounds.

    ``low`` and ``high`` bound a number's value and anything else's length. ``each`` tells what
    the items of a list are, or what a map holds. ``among``: the texts that are allowed. ``since``:
    the version of the protocol that brought it.
    """

    kind: type
    low: float = 0
    high: float = inf
    required: bool = False
    each: Any = None
    among: frozenset[str] | None = None
    since: int = 1


Fields = dict[str, Field]

_TASK_ID = Field(int, 1, _ID_MAX, required=True)
_TASK_IDS = Field(list, 1, MAX_WATCHED, required=True, each=_TASK_ID)
_NAME = Field(str, 1, 200)

_NEW_TASK: Fields = {
    "submission": Field(bytes, 16, 16, required=True),
    "name": _NAME._replace(required=True),
    "args": Field(bytes, 1, ARGUMENTS_LIMIT, required=True),
    "key": Field(str, 1, 500),
    "queue": _NAME,
    "priority": Field(int, -_PRIORITY_MAX, _PRIORITY_MAX),
    "delay": Field(float, 0, _DELAY_MAX),
    "options": Field(
        dict, each={"on_deploy": Field(str, among=frozenset(each.value for each in OnDeploy))}
    ),
}

_DEPLOY: Fields = {"plan": Field(bool, since=2), "allow_held": Field(bool, since=2)}

OPERATIONS: dict[str, Fields] = {
    "submit": {
        "tasks": Field(list, 1, MAX_BATCH, required=True, each=_NEW_TASK),
        "secrets": Field(bool, since=3),
    },
    "show": {"task": _TASK_ID},
    "list": {
        "state": Field(str, among=frozenset(each.value for each in State)),
        "queue": _NAME,
        "name": _NAME,
        "limit": Field(int, 1, MAX_LISTED),
        "results": Field(bool),
        "before": Field(int, 1, _ID_MAX),
    },
    "status": {},
    "wait": {"tasks": _TASK_IDS, "within": Field(str, 1, 4096)},
    "follow": {"tasks": _TASK_IDS, "after": Field(int, 0, _ID_MAX), "progress": Field(bool)},
    "log": {
        "task": _TASK_ID,
        "offset": Field(int, 0, _ID_MAX),
        "limit": Field(int, 1, 1024 * 1024),
        "skips": Field(bool),
    },
    "cancel": {"task": _TASK_ID},
    "retry": {"task": _TASK_ID},
    "revisions": {},
    "reload": {"release": Field(str, 1, 4096), **_DEPLOY},
    "rollback": _DEPLOY,
    "drain": {
        "revision": Field(str, 1, 4096, required=True),
        "how": Field(str, among=frozenset(("finish", "checkpoint", "now"))),
    },
    "shutdown": {"plan": Field(bool), "keep": Field(bool)},
    "stop": {"stream": _TASK_ID},
}

STREAMS = frozenset(("follow", "wait"))
"""Operations that answer with a stream."""

SINCE = {"rollback": 2, "drain": 2, "shutdown": 3}
"""The version of the protocol that brought an operation, where it is not the first."""


def needs(op: str, fields: dict[str, Any]) -> tuple[int, str]:
    """The version of the protocol that a request takes, and what of it does, in words.

    A daemon that does not know a field does the rest of the request: where the field asks for less
    than that, it must not be sent.
    """
    found = [(SINCE.get(op, 1), op)]
    found += [(OPERATIONS[op][name].since, f"{op} with {name}") for name in fields]
    return max(found, key=lambda each: each[0])


def check(op: str, message: dict[str, Any]) -> dict[str, Any]:
    """The known fields of ``message``, each as the table wants it.

    Unknown fields are left out, as is an optional one that is null. ``op`` is in the table.
    Raises errors.ProtocolError naming the operation and the field.
    """
    return _check_map(message, OPERATIONS[op], op + ": ")


def _check_map(found: dict[str, Any], wanted: Fields, path: str) -> dict[str, Any]:
    checked = {}
    for name, field in wanted.items():
        value = found.get(name)
        if value is not None:
            checked[name] = _check_value(value, field, path + name)
        elif field.required:
            raise ProtocolError(f"{path}{name} is missing")
    return checked


def _check_value(value: Any, field: Field, path: str) -> Any:
    kind = type(value)
    if kind is not field.kind and not (field.kind is float and kind is int):
        raise ProtocolError(f"{path} must be {_wording(field)}, not {kind.__name__}")
    if field.among is not None and value not in field.among:
        raise ProtocolError(f"{path} must be {_wording(field)}, not {value[:60]!r}")
    if kind is not bool and not field.low <= _extent(value) <= field.high:
        raise ProtocolError(f"{path} must be {_wording(field)}; it is {_measure(value)}")
    if kind is str and not value.isascii():
        _check_text(value, path)
    if kind is list:
        return [_check_item(item, field.each, f"{path}[{n}]") for n, item in enumerate(value)]
    if kind is dict:
        return _check_map(value, field.each, path + ".")
    return value


def _check_text(value: str, path: str) -> None:
    """Half of a surrogate pair is a character to Python, and has no form in UTF-8: undecodable
    bytes of a file's name or of a command line are such."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        wrong = value[error.start]
        raise ProtocolError(f"{path} must be text; {wrong!r} in it is no character") from None


def _check_item(item: Any, each: Any, path: str) -> Any:
    if isinstance(each, Field):
        return _check_value(item, each, path)
    if type(item) is not dict:
        raise ProtocolError(f"{path} must be a map, not {type(item).__name__}")
    return _check_map(item, each, path + ".")


def _extent(value: Any) -> float:
    return value if isinstance(value, int | float) else len(value)


def _measure(value: Any) -> str:
    return str(value) if isinstance(value, int | float) else f"of length {len(value):,}"


_WORDS: dict[type, tuple[str, str]] = {
    int: ("an int", ""),
    float: ("a number", ""),
    str: ("text", " characters"),
    bytes: ("bytes", ""),
    list: ("a list", " items"),
    dict: ("a map", ""),
    bool: ("true or false", ""),
}


def _wording(field: Field) -> str:
    """What a field must be, in words."""
    if field.among is not None:
        return "one of " + ", ".join(sorted(field.among))
    noun, unit = _WORDS[field.kind]
    if field.kind in (bool, dict):
        return noun
    low, high = f"{field.low:,}", f"{field.high:,}"
    if field.kind is bytes:
        return f"{low} bytes" if low == high else f"{low} to {high} bytes"
    return f"{noun} {'from' if field.kind in (int, float) else 'of'} {low} to {high}{unit}"

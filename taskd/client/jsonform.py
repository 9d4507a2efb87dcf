"""Values as JSON and back: what ``--json`` prints, and ``key=value`` of the command line.

bytes become {"$bytes": base64}; a Secret four dots; tuples and sets lists (a set in the order of
its members' JSON); datetime and date ISO 8601 text, Decimal and UUID text; NaN and the infinities,
which JSON lacks, null. A dict's keys become text; where two would be the same text, the dict
becomes {"$items": [[key, value], …]}. A result that is no value at all (a task has forged its end)
becomes {"$damaged": base64}, so that one task's does not keep a whole list from being shown.
"""

from __future__ import annotations

import json
import math
from base64 import b64encode
from typing import TYPE_CHECKING, Any

from taskd.errors import ProtocolError
from taskd.protocol.secret import SHOWN, Secret

if TYPE_CHECKING:
    from taskd.client.records import TaskInfo


def to_json(value: Any) -> Any:
    """The form of a plain-data value that ``json.dumps(…, allow_nan=False)`` takes."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return {"$bytes": b64encode(value).decode()}
    if isinstance(value, dict):
        return _map(value)
    if isinstance(value, set):
        return sorted(map(to_json, value), key=_text)
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return _leaf(value)


def task_to_json(task: TaskInfo) -> dict[str, Any]:
    """A task with exactly the fields that are documented for JSON."""
    return {
        "id": str(task.id),
        "name": task.name,
        "queue": task.queue,
        "state": task.state,
        "reason": task.reason,
        "attempt": task.attempt,
        "revision": task.revision,
        "progress": to_json(task.progress),
        "result": _result(task),
        "error": to_json(task.error),
        "submitted": task.submitted,
        "started": task.started,
        "ended": task.ended,
    }


def _result(task: TaskInfo) -> Any:
    try:
        return to_json(task.result)
    except ProtocolError:
        return {"$damaged": b64encode(task.encoded_result or b"").decode()}


def from_argument(text: str) -> Any:
    """The value of ``key=value``: JSON in the strict sense, else the text itself.

    NaN, Infinity and numbers that a float cannot hold are no strict JSON; neither is text with
    half a surrogate pair, which no file and no socket could carry.
    """
    try:
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite)
        _text(value).encode()
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return text
    return value


def _map(value: dict[Any, Any]) -> dict[str, Any]:
    keys = [_key(key) for key in value]
    if len(set(keys)) == len(keys):
        return {key: to_json(item) for key, item in zip(keys, value.values(), strict=True)}
    return {"$items": [[to_json(key), to_json(item)] for key, item in value.items()]}


def _key(key: Any) -> str:
    form = to_json(key)
    return form if isinstance(form, str) else _text(form)


def _leaf(value: Any) -> str:
    """datetime, date, Decimal, UUID, Secret."""
    if isinstance(value, Secret):
        return SHOWN
    isoformat = getattr(value, "isoformat", None)
    return str(isoformat()) if isoformat is not None else str(value)


def _text(form: Any) -> str:
    return json.dumps(form, allow_nan=False)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large")
    return number

"""Values as JSON and back: what ``--json`` prints, and ``key=value`` of the command line.

bytes become {"$bytes": base64}; a Secret four dots; tuples and sets lists (a set in the order of
its members' JSON); datetime and date ISO 8601 text, Decimal and UUID text; NaN and the infinities,
which JSON lacks, null. A dict's keys become text; where two would be the same text, the dict
becomes {"$items": [[key, value], …]}. A result that cannot be decoded (its task forged it) becomes
{"$damaged": base64}, so that the list which it is in can be shown.
"""

from __future__ import annotations

import json
import math
from base64 import b64encode
from typing import TYPE_CHECKING, Any

from taskd.errors import ProtocolError
from taskd.protocol.secret import SHOWN, Secret

if TYPE_CHECKING:
    from taskd.client.records import AttemptInfo, TaskInfo


def to_json(value: Any) -> Any:
    """The form of a plain-data value that ``json.dumps(…, allow_nan=False)`` takes."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return {"$bytes": b64encode(value).decode()}
    if isinstance(value, dict):
        forms = [to_json(key) for key in value]
        keys = [form if isinstance(form, str) else _text(form) for form in forms]
        items = [to_json(item) for item in value.values()]
        if len(set(keys)) == len(keys):
            return dict(zip(keys, items, strict=True))
        return {"$items": [list(pair) for pair in zip(forms, items, strict=True)]}
    if isinstance(value, set):
        return sorted(map(to_json, value), key=_text)
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, Secret):
        return SHOWN
    isoformat = getattr(value, "isoformat", None)  # datetime, date; else Decimal, UUID
    return str(isoformat()) if isoformat is not None else str(value)


def task_to_json(task: TaskInfo) -> dict[str, Any]:
    """A task with exactly the fields that are documented for JSON."""
    try:
        result = to_json(task.result)
    except ProtocolError:
        result = {"$damaged": b64encode(task.encoded_result or b"").decode()}
    return {
        "id": str(task.id),
        "name": task.name,
        "queue": task.queue,
        "state": task.state,
        "reason": task.reason,
        "attempt": task.attempt,
        "revision": task.revision,
        "progress": to_json(task.progress),
        "result": result,
        "error": to_json(task.error),
        "submitted": task.submitted,
        "started": task.started,
        "ended": task.ended,
        "priority": task.priority,
        "key": task.key,
        "owner": task.owner,
        "arguments": task.arguments,
        "pid": task.pid,
        "memory": task.memory,
        "parent": None if task.parent is None else str(task.parent),
        "after": [each | {"task": str(each["task"])} for each in task.after or ()],
        "log": task.log,
        "silent": task.silent,
        "timeout": task.timeout,
    }


def attempt_to_json(attempt: AttemptInfo) -> dict[str, Any]:
    """An attempt with exactly the fields that are documented for JSON."""
    return attempt._asdict() | {"error": to_json(attempt.error)}


def from_argument(text: str) -> Any:
    """The value of ``key=value``: JSON in the strict sense, else the text itself.

    NaN, Infinity and numbers that a float cannot hold are no strict JSON; neither is text with
    half a surrogate pair, which no file and no socket could carry.
    """
    try:
        value = json.loads(text)
        _text(value)  # raises ValueError for a float that is not finite
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return text
    return value


def _text(form: Any) -> str:
    return json.dumps(form, allow_nan=False)

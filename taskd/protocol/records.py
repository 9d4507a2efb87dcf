"""What the master reads of a slot's records, and how it is checked.

Pure; runs in the master, and in the probe worker of a deploy. ``saved`` defines the records. User
code may have got hold of its worker's slot, so that a record whose checksum is right may still hold
anything. What a task saves is checked where it is added up (``saved.Saved.apply``).
"""

from __future__ import annotations

from math import inf, isfinite
from typing import Any

from taskd.errors import ProtocolError
from taskd.model.retrying import LONGEST, MOST_DELAYS, MOST_RETRIES
from taskd.protocol import data, fields
from taskd.protocol.fields import Field, Fields
from taskd.protocol.saved import Kind, Outcome

TEXT_LIMIT = 128 * 1024
"""Bytes of each text that the master reads: with the largest result, all that is told of a task
fits in one frame (``protocol.frames``). What a worker writes is far below."""

PROGRESS_PARTS = ("done", "total", "note")
ERROR_PARTS = ("type", "message", "traceback")
"""What clients are told of a progress and of an error; a record may hold more."""

_INT, _FLAG = Field(int, required=True), Field(bool, required=True)
_COUNT = Field(float, required=True, null=True)
_TEXT = Field(str, required=True, size=TEXT_LIMIT)
_SECONDS = Field(float, 0, LONGEST)

RETRY: Fields = {
    "retries": Field(int, 0, MOST_RETRIES, required=True),
    "delays": Field(list, 1, MOST_DELAYS, each=_SECONDS),
    "max_backoff": _SECONDS._replace(required=True),
    "jitter": Field(float, 0, 1, required=True),
    "after": _SECONDS,
    "counts": Field(bool),
    "final": Field(str, size=TEXT_LIMIT),
    "note": Field(str, size=TEXT_LIMIT),
}
"""What the code that ran a failed try says of it."""

_READ: dict[int, Fields] = {
    Kind.BEGIN: {
        "task": _INT,
        "attempt": _INT,
        "version": Field(int),
        "at": Field(float),
        "begun": Field(float),
    },
    Kind.PROGRESS: {"done": _COUNT, "total": _COUNT, "note": _TEXT},
    Kind.END: {
        "task": _INT,
        "attempt": _INT,
        "outcome": Field(str, required=True, among=frozenset(each.value for each in Outcome)),
        "progressed": _FLAG,
        "version": Field(int),
        "unfit": Field(bool),
        "result": Field(bytes, 0, data.RESULT_LIMIT),
        "error": Field(dict, each=dict.fromkeys(ERROR_PARTS, _TEXT)),
        "reason": Field(str, size=TEXT_LIMIT),
        "wake": Field(float),
        "ran": Field(float, 0, LONGEST),
        "snapshot": Field(int),
        "retry": Field(dict, each=RETRY),
    },
    Kind.SNAPSHOT: {"saved": Field(bytes, required=True)},
}


def check(kind: int, record: dict[str, Any]) -> None:
    """Raises ProtocolError if a record lacks what the master needs, or if a field that the master
    reads is of a wrong type or too large."""
    wanted = _READ.get(kind, {})
    checked = fields.check(record, wanted, "a record's ")
    if absent := wanted.keys() & record.keys() - checked.keys():
        raise ProtocolError(f"a record's {min(absent)} is null")
    is_asleep = checked.get("outcome") == Outcome.SLEEPING.value
    if is_asleep and not isfinite(checked.get("wake", inf)):
        raise ProtocolError("a task that sleeps and has no time to wake")

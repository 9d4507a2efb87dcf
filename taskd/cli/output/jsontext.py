"""What ``--json`` prints: one object on a line, with exactly the documented fields."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

STATUS = ("pid", "revision", "release", "confirmed", "symlink", "states", "queues")
REVISION = ("revision", "path", "hash", "state", "workers", "running", "waiting")
REJECTED = ("revision", "path", "reason", "at")
EVENT = ("event", "task", "at", "state", "attempt", "revision", "reason")


def line(value: Mapping[str, Any]) -> str:
    """One object as one line of strict JSON (a NaN in it would be a bug, and raises)."""
    return json.dumps(value, allow_nan=False, separators=(", ", ": "))


def only(fields: Iterable[str], value: Mapping[str, Any]) -> dict[str, Any]:
    """Those fields of ``value``, in that order; a task's id is a text, as everywhere in JSON."""
    return {name: str(value[name]) if name == "task" else value[name] for name in fields}

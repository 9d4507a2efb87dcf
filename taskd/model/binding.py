"""Whether the names of a task's arguments bind to its signature.

Pure. Used by the master when a task is submitted and planned, by ``fn.submit`` in the caller, and
by the worker before it calls the function; ``entry`` is the task's entry in a manifest (see
``protocol.worker``), of which ``params`` and ``any`` are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

SECRET_SIGN = "*"
"""Stands, in the shape of a task's arguments, behind the name of one that holds a Secret."""


def names_in(shape: str) -> list[str]:
    """The names of the arguments of a shape: what ``Group.shape`` holds."""
    return [name.removesuffix(SECRET_SIGN) for name in shape.split(",")] if shape else []


def bind(entry: Mapping[str, Any], names: Iterable[str]) -> str | None:
    """Why arguments of these ``names`` do not bind, in words; None if they do."""
    required = {name: bool(needed) for name, needed in entry["params"]}
    given = set(names)
    missing = [name for name, needed in required.items() if needed and name not in given]
    unexpected = [] if entry.get("any") else sorted(given - required.keys())
    if not missing and not unexpected:
        return None
    faults = []
    if missing:
        faults.append(f"missing {_listed(missing)}")
    if unexpected:
        free = [name for name in required if name not in given]
        faults.append(f"unexpected {_listed(unexpected)}{_near(unexpected, free)}")
    takes = ", ".join(name if needed else f"{name} (optional)" for name, needed in required.items())
    return f"{'; '.join(faults)}; the task takes {takes or 'no arguments'}"


def _listed(names: list[str]) -> str:
    quoted = ", ".join(f"'{name}'" for name in names)
    return f"argument{'s' if len(names) > 1 else ''} {quoted}"


def _near(unexpected: list[str], free: list[str]) -> str:
    from difflib import get_close_matches  # slow to import, and needed for this error alone

    near = {match: None for name in unexpected for match in get_close_matches(name, free, 1)}
    return f" (did you mean {' and '.join(repr(name) for name in near)}?)" if near else ""

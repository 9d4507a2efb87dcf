"""The file ``rejected`` in the state directory: releases that did not come to serve, and why.

Written after each refused deploy, read at a start; an exec carries the list itself. A JSON list,
oldest first, of {"revision", "path", "reason", "at": Unix seconds}; unknown fields are ignored.
Durable once written: a client was told that its deploy was refused, and asks later why.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from taskd import log
from taskd.posix import files
from taskd.record import Record

REMEMBERED = 10
"""How many rejected releases are kept."""

LONGEST_REASON = 2000
"""Characters of a reason."""


class Rejected(Record):
    """A release that did not come to serve; ``at`` in Unix seconds."""

    revision: str
    path: str
    reason: str
    at: float


def add(known: Iterable[Rejected], path: str, name: str, reason: str, at: float) -> list[Rejected]:
    """``known`` and one more; only the last REMEMBERED."""
    short = reason if len(reason) <= LONGEST_REASON else f"{reason[: LONGEST_REASON - 1]}…"
    return [*known, Rejected(name, path, short, at)][-REMEMBERED:]


def write(state: str, rejected: Iterable[Rejected]) -> None:
    """Write the file. A failure is logged: the list is lost at the next start then."""
    path = _path(state)
    try:
        import json  # in here: this fails too when descriptors have run out

        text = json.dumps([each._asdict() for each in rejected], indent=1)
        files.write_atomically(path, f"{text}\n".encode())
    except (OSError, ImportError) as error:
        log.warning("what was refused will not be known after a restart", why=str(error))


def read(state: str) -> list[Rejected]:
    """The list that an earlier daemon wrote; empty if there is no file or it cannot be read."""
    import json

    try:
        found = [
            Rejected(str(e["revision"]), str(e["path"]), str(e["reason"]), float(e["at"]))
            for e in json.loads(files.read_own(_path(state)))
        ]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("the list of what was refused cannot be read", why=str(error))
        return []
    return found[-REMEMBERED:]


def _path(state: str) -> str:
    return os.path.join(state, "rejected")

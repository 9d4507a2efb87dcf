"""Submission ids: 16 bytes by which a submission that is sent again is known.

Pure; used by both ends. A request says of which kind an id is; one of another kind, and those of
0.2's clients, which say nothing, are not looked into.

timed    8 bytes: when the client made it, in microseconds since 1970, the highest byte first; then
         8 random bytes. Once the daemon may have forgotten such an id (``store.api.HORIZON``), it
         does not run it.
named    made of a name that the work has elsewhere (a message's, say), so that who submits it
         again, whenever, has the same one. It is known for a time that the submission says, also
         once its task was removed, and never too old.
"""

from __future__ import annotations

from typing import Any

from taskd.record import Record

TIMED, NAMED = "timed", "named"

NAMED_FOR = 30 * 86400.0
"""Seconds for which a named one is known, unless it says for how long."""

JOIN, REFUSE, REPLACE = "join", "refuse", "replace-waiting"
IF_EXISTS = frozenset((JOIN, REFUSE, REPLACE))
"""What a submission may do whose key another task has."""

SIZE = 16
_HALF = 8


def timed(now: float, random: bytes) -> bytes:
    """An id that is made now (Unix seconds); ``random``: 8 bytes."""
    return int(now * 1e6).to_bytes(_HALF, "big") + random


def made(submission: bytes, kind: str | None) -> float | None:
    """When the id was made; None: it does not say."""
    return int.from_bytes(submission[:_HALF], "big") / 1e6 if kind == TIMED else None


class Call(Record):
    """A call of a task, to be submitted with others (``task.call(…)``). ``arguments``: plain data,
    by name; ``how``: as ``Client.submit`` takes it."""

    name: str
    arguments: dict[str, Any]
    how: dict[str, Any]

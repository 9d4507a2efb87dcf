"""What a task keeps between attempts: the records a slot holds and the state they add up to.

Pure; runs in workers (which save), in the master (which adds up a dead worker's records) and in
tests. Both forms outlive every process; this module is their only definition, ``FORMAT`` their
version, and recorded samples stand in tests/golden.

Records (kind, and a CBOR map of fields; user values as byte strings in plain-data encoding):

    BEGIN       task, attempt, name, version, at      an attempt starts; everything before is past
    STEP        path, value, state?                   a step's result is kept
    LOOP        path, mark, state?                    a loop's cursor moved, or it is finished
    CHECKPOINT  state                                 ctx.checkpoint()
    PROGRESS    done, total, note
    END         task, attempt, outcome, progressed, result?, error?, reason?, wake?, snapshot?
    SNAPSHOT    saved                                 the full state (``Saved.encode``); it
                                                      replaces all that was added up before it
    PAD         zero                                  brings the next record to a block boundary

A *path* names a step or a loop: the names of the loops around it and its own, joined by "/"
(``rows/parse``). What belongs to a loop's body has the loop's path and "/" in front, and is
dropped when that loop's cursor moves: it belonged to the item that is now done.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Any, NamedTuple

FORMAT = 1


class Kind(IntEnum):
    """The kind of a slot record; the numbers are on disk and never reused."""

    BEGIN = 1
    STEP = 2
    LOOP = 3
    CHECKPOINT = 4
    PROGRESS = 5
    END = 6
    SNAPSHOT = 7
    PAD = 8


class Outcome(str, Enum):
    """How an attempt ended, as its END record says."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    LEFT = "left"  # asked to leave (deploy, stop, operator); continues from what is saved
    CANCELLED = "cancelled"
    SLEEPING = "sleeping"  # ctx.sleep of a named sleep; continues at ``wake``
    HELD = "held"  # saved state and code do not fit; ``reason`` says why
    YIELDED = "yielded"  # a command's exit status 75: continue later, not asked by us


class Mark(NamedTuple):
    """How far one loop is.

    ``cursor``: what the source resumes from; ``done``: items done; ``total``: of how many, or
    None; ``length`` and ``fingerprint``: of a sequence and of its item at the cursor, to notice
    that it changed (None for callables); ``finished``: the loop is over and is not entered again.
    """

    cursor: Any
    done: int
    total: int | None = None
    length: int | None = None
    fingerprint: bytes | None = None
    finished: bool = False


class Saved:
    """The kept state of one task, as its next attempt begins with it.

    ``version``: of the task function that saved it. ``args``: None unless a migration rewrote
    them. ``steps``: path to result. ``cursors``: path to Mark. ``state``: ``ctx.state``.
    """

    __slots__ = ("args", "cursors", "state", "steps", "version")

    def __init__(self, version: int) -> None:
        self.version = version
        self.args: dict[str, Any] | None = None
        self.steps: dict[str, Any] = {}
        self.cursors: dict[str, Mark] = {}
        self.state: dict[str, Any] = {}

    # To be written with the task API: encode() -> bytes, decode(raw) -> Saved (classmethod),
    # apply(kind, fields) -> None, drop_below(path) -> None.

"""What a submission says of its task: checked, and in the form in which it is sent.

Everything here raises Refused, or a kind of it, for what cannot be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taskd.errors import BadArguments, Refused
from taskd.model import duration, moment
from taskd.protocol import data, submission

if TYPE_CHECKING:
    from datetime import datetime


def due(at: datetime, delay: float | None) -> float:
    if delay is not None:
        raise Refused("submit: delay and at are both given; a task is due at one time")
    try:
        return moment.seconds(at)
    except (TypeError, ValueError) as error:
        raise Refused(f"at: {error}") from None


def limit(what: str, value: Any) -> float:
    try:
        return duration.limit(what, value)
    except (TypeError, ValueError) as error:
        raise Refused(f"submit: {error}") from None


def if_exists(value: Any) -> str:
    if value not in submission.IF_EXISTS:
        known = ", ".join(sorted(submission.IF_EXISTS))
        raise Refused(f"submit: if_exists must be one of {known}, not {value!r}")
    return str(value)


def encoded(args: dict[str, Any]) -> bytes:
    if type(args) is not dict:
        raise BadArguments(
            f"args must be a dict of the task's arguments by their names, not {type(args).__name__}"
        )
    for name in args:
        if type(name) is not str:
            raise BadArguments(f"args: the name of an argument must be a str, not {name!r:.60}")
    try:
        return data.encode(args, "args", data.ARGUMENTS_LIMIT)
    except ImportError as error:  # of what only some values need
        raise Refused(
            f"args cannot be encoded any more ({error}): submit before the interpreter ends, from "
            "an exit handler (atexit) at the latest"
        ) from None

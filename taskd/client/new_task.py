"""What a submission says of its task: checked, and in the form in which it is sent.

Everything here raises Refused, or a kind of it, for what cannot be.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from taskd.errors import BadArguments, Refused
from taskd.model import duration, moment
from taskd.model.order import MOST_AFTER, IfFailed
from taskd.protocol import data, submission

IF_FAILED = frozenset(each.value for each in IfFailed)


@runtime_checkable
class HasId(Protocol):
    """A handle."""

    @property
    def id(self) -> int: ...


After = int | HasId | Iterable[int | HasId]
"""Tasks, by their ids or handles."""

if TYPE_CHECKING:
    from datetime import datetime


def made(name: str, args: dict[str, Any] | None, **how: Any) -> dict[str, Any]:
    """A task as ``submit`` sends it; ``how``: as ``SubmitOperations.submit`` takes it. A field that
    0.2 does not know is there only if it says something."""
    said = {field: value for field, value in how.items() if value is not None}
    task: dict[str, Any] = {
        # Sent twice, it is still one task.
        "submission": submission.timed(time.time(), os.urandom(8)),
        "submission_kind": submission.TIMED,
        "name": name,
        "args": encoded({} if args is None else args),
        **{field: how.get(field) for field in ("key", "queue", "delay", "options")},
        "priority": how.get("priority", 0),
    }
    if "named" in said:
        task |= named(said["named"], said.get("named_for"))
    if "retries" in said:
        task["retries"] = said["retries"]
    if "at" in said:
        task["due"] = due(said["at"], how.get("delay"))
    for field in ("expires", "timeout", "key_for", "at_most"):
        if field in said:
            task[field] = limit(field, said[field])
    if others := ids(said.get("after", ())):
        task["after"] = others
    if "child" in said:
        names = ("parent", "parent_attempt", "child", "detached")
        task |= dict(zip(names, said["child"], strict=True))
    if "if_failed" in said:
        task["if_failed"] = if_failed(said["if_failed"])
    if "if_exists" in said:
        task["if_exists"] = if_exists(said["if_exists"])
    return task


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


def ids(tasks: After) -> list[int]:
    """Ids, each once."""
    some = [tasks] if isinstance(tasks, (int, HasId)) else tasks
    named = [each if isinstance(each, int) else each.id for each in some]
    if len(found := list(dict.fromkeys(named))) > MOST_AFTER:
        raise Refused(
            f"submit: after names {len(found):,} tasks; {MOST_AFTER:,} at most are possible"
        )
    return found


def if_failed(value: Any) -> str:
    if value not in IF_FAILED:
        raise Refused(f"submit: if_failed must be hold, cancel or run, not {value!r}")
    return str(value)


def if_exists(value: Any) -> str:
    if value not in submission.IF_EXISTS:
        known = ", ".join(sorted(submission.IF_EXISTS))
        raise Refused(f"submit: if_exists must be one of {known}, not {value!r}")
    return str(value)


def named(name: Any, lasts: Any) -> dict[str, Any]:
    """The fields of a named submission id."""
    import hashlib

    if type(name) is not str or not name:
        raise Refused(f"submit: named must be a text, not {name!r}")
    digest = hashlib.sha256(f"{os.getuid()}\0{name}".encode(errors="surrogatepass")).digest()
    seconds = submission.NAMED_FOR if lasts is None else limit("named_for", lasts)
    kind = {"submission_kind": submission.NAMED, "named_for": seconds}
    return kind | {"submission": digest[: submission.SIZE]}


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

"""Answers a deploy's plan: could this revision go on with each of these tasks?

Runs in the main thread of a worker of the revision that is to be deployed (the ``plan`` message of
``protocol.worker``). It does, on copies, what an attempt does at its start: migrate the saved
state, bind the arguments. No task is run and nothing is saved. Migrations and the app's own probe
are user code: after either has run this process is not used for tasks.

The state of a running task is read from its slot, which its worker goes on writing; ``slot.reader``
returns what was complete at one moment. The master sends the questions in several messages.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

from taskd import tasks
from taskd.api.checks import is_async
from taskd.errors import Error, ProtocolError
from taskd.model.arguments import mistyped
from taskd.posix import memory, native
from taskd.protocol import data
from taskd.protocol.saved import Saved
from taskd.record import Record
from taskd.slot import kept_state, reader
from taskd.worker import output
from taskd.worker.channel import read_once
from taskd.worker.failure import LINE_LIMIT, one_line, summary
from taskd.worker.migrate import Unfit, fit

WHYS_LIMIT = 1024 * 1024
"""Bytes that all reasons together may take: the answer is one frame."""


class Answer(Record):
    """``fields``: of the ``planned`` message. ``reusable``: no user code has run."""

    fields: dict[str, Any]
    reusable: bool


def answer(path: str) -> Answer:
    """Answer the questions in the file at ``path``, which is removed first. Raises nothing."""
    try:
        asked = read_once(path)
    except (OSError, ProtocolError) as error:
        return Answer(
            _fields([], one_line(f"cannot read what the plan asks in {path}: {error}")), True
        )
    memory.return_large()
    slots = os.path.dirname(path)
    verdicts = [_judge(item, slots) for item in asked["items"]]
    probe = None if asked["probe"] is None else _probe(asked["probe"])
    is_unused = asked["probe"] is None and not any(each.migrated for each in verdicts)
    return Answer(_fields(verdicts, probe), is_unused)


class _Verdict(Record):
    """``refused``: why this revision cannot go on with an item; None: it can. ``migrated``: a
    migration was run. ``mistyped``: which argument is not of the type that this code says: it was
    accepted, and is passed as it is."""

    ref: int
    refused: str | None = None
    migrated: bool = False
    mistyped: str | None = None


def _fields(verdicts: list[_Verdict], probe: str | None) -> dict[str, Any]:
    refused = [(each.ref, each.refused) for each in verdicts if each.refused is not None]
    mistyped = [(each.ref, each.mistyped) for each in verdicts if each.mistyped is not None]
    room = min(LINE_LIMIT, WHYS_LIMIT // max(1, len(refused) + len(mistyped)))
    return {
        "checked": len(verdicts),
        "migrated": sum(each.migrated for each in verdicts),
        "refused": [[ref, one_line(why, room)] for ref, why in refused],
        "mistyped": [[ref, one_line(why, room)] for ref, why in mistyped],
        "probe": probe,
    }


def _judge(item: dict[str, Any], slots: str) -> _Verdict:
    ref: int = item["ref"]
    task = tasks.registered.get(item["name"])
    if task is None:
        return _Verdict(ref, f"there is no task {item['name']!r}")
    try:
        raw = _saved_by_now(item, slots)
        saved = None if raw is None else Saved.decode(raw)
        args = data.decode(item["args"])
    except ProtocolError as error:
        return _Verdict(ref, f"what it has saved cannot be read: {error}")
    is_migrated = bool(task.chain(item["version"] if saved is None else saved.version))
    try:
        start = fit(task, args, saved, item["version"])
    except Unfit as error:
        return _Verdict(ref, str(error), is_migrated)
    return _Verdict(ref, None, is_migrated, mistyped(task.annotations.forms, start.args))


def _saved_by_now(item: dict[str, Any], slots: str) -> bytes | None:
    """The state in the store, with what the running attempt has added in its slot. A slot that is
    gone, is another attempt's by now, or cannot be read adds nothing: the plan fails for none."""
    stored: bytes | None = item["saved"]
    if item.get("slot") is None:
        return stored
    try:
        fd = reader.open_slot(os.path.join(slots, item["slot"]))
        try:
            content = kept_state.read(fd)
        finally:
            native.close(fd)
        if not content.saves or not kept_state.is_of(content, item["task"], item["attempt"]):
            return stored
        return kept_state.add_up(content, stored).encode()
    except (Error, OSError, KeyError, TypeError):
        return stored


def _probe(where: str) -> str | None:
    """Why the app's own probe failed, in one line; None if it did not."""
    pid = os.getpid()
    module, _, name = where.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
        returned = found()
        if is_async(returned):
            why: str | None = "is async: it must be a plain function, which is done when it returns"
        else:
            failed = returned is not None and not returned
            why = one_line(f"returned {returned!r}") if failed else None
    except BaseException as error:  # the boundary to user code: all of it is reported
        why = summary(error)
    output.leave_if_child(pid)
    return why

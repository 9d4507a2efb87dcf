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
            _fields(0, 0, [], one_line(f"cannot read what the plan asks in {path}: {error}")), True
        )
    memory.return_large()
    slots = os.path.dirname(path)
    verdicts = [(item["ref"], *_judge(item, slots)) for item in asked["items"]]
    refused = [(ref, why) for ref, why, _ in verdicts if why is not None]
    migrated = sum(is_migrated for _, _, is_migrated in verdicts)
    probe = None if asked["probe"] is None else _probe(asked["probe"])
    fields = _fields(len(verdicts), migrated, refused, probe)
    return Answer(fields, migrated == 0 and asked["probe"] is None)


def _fields(
    checked: int, migrated: int, refused: list[tuple[int, str]], probe: str | None
) -> dict[str, Any]:
    room = min(LINE_LIMIT, WHYS_LIMIT // max(1, len(refused)))
    return {
        "checked": checked,
        "migrated": migrated,
        "refused": [[ref, one_line(why, room)] for ref, why in refused],
        "probe": probe,
    }


def _judge(item: dict[str, Any], slots: str) -> tuple[str | None, bool]:
    """Why this revision cannot go on with one item (None: it can), and whether a migration of it
    was run."""
    task = tasks.registered.get(item["name"])
    if task is None:
        return f"there is no task {item['name']!r}", False
    try:
        raw = _saved_by_now(item, slots)
        saved = None if raw is None else Saved.decode(raw)
        args = data.decode(item["args"])
    except ProtocolError as error:
        return f"what it has saved cannot be read: {error}", False
    is_migrated = bool(task.chain(item["version"] if saved is None else saved.version))
    try:
        fit(task, args, saved, item["version"])
    except Unfit as error:
        return str(error), is_migrated
    return None, is_migrated


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

"""A deploy's questions, answered by a worker of the new revision: could you go on with these?

Runs in the worker's main thread. What is asked about are copies; nothing is saved and no task is
run, but migrations and the app's probe are user code: a worker that ran some is not used for
tasks afterwards.
"""

from __future__ import annotations

import importlib
import os
from typing import Any, NamedTuple

import cbor2

from taskd.errors import Error
from taskd.model.binding import bind
from taskd.protocol import data
from taskd.protocol.saved import Saved
from taskd.tasks import registry
from taskd.worker.migrate import Unfit, fit


class Answer(NamedTuple):
    """The ``planned`` message's fields."""

    checked: int
    migrated: int
    refused: list[list[Any]]
    probe: str | None

    @property
    def ran_user_code(self) -> bool:
        return self.migrated > 0 or bool(self.refused) or self.probe is not None


def answer(path: str) -> tuple[Answer, bool]:
    """Answer what the file asks, and remove it. The bool: whether user code ran."""
    with open(path, "rb") as file:
        asked = cbor2.loads(file.read())
    os.unlink(path)
    migrated, refused = 0, []
    for item in asked["items"]:
        why, moved = _check(item)
        migrated += moved
        if why is not None:
            refused.append([item["ref"], why])
    probe = None if asked["probe"] is None else _probe(asked["probe"])
    made = Answer(len(asked["items"]), migrated, refused, probe)
    return made, made.ran_user_code or asked["probe"] is not None


def _check(item: dict[str, Any]) -> tuple[str | None, bool]:
    """Why this revision cannot go on with it, or None; and whether a migration ran."""
    task = registry().get(item["name"])
    if task is None:
        return f"there is no task {item['name']!r}", False
    try:
        saved = None if item["saved"] is None else Saved.decode(item["saved"])
        args = data.decode(item["args"])
        fitted = fit(task, args, saved, item["version"])
    except (Unfit, Error) as error:
        return str(error), True
    why = bind(task.entry(), fitted.args)
    return (None if why is None else f"its arguments do not bind: {why}"), fitted.migrated


def _probe(where: str) -> str | None:
    """Why the app's own probe failed, or None."""
    module, _, name = where.partition(":")
    try:
        verdict = getattr(importlib.import_module(module), name)()
    except (Exception, SystemExit) as error:
        return f"{type(error).__name__}: {error}"
    if verdict is not None and not verdict:
        return f"it returned {verdict!r}"
    return None

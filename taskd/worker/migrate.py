"""Runs migrations: they turn the state that an older version of a task saved into this version's.

Runs in workers, at the start of an attempt and in the plan of a deploy, and in tests. Nothing is
written here: ``fit`` returns what an attempt begins with, or raises ``Unfit`` with the reason.

Invariants
    * A migration gets copies: the saved state does not change, whatever the migration does.
    * The state that it returns is checked to be plain data within the limits, and is read back from
      its bytes before it is used.
    * An exception of a migration, sys.exit included, is raised from here only as ``Unfit``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from taskd.api.checks import place
from taskd.api.saved_state import FINISHED, SavedState
from taskd.errors import NotPlainData, ProtocolError
from taskd.protocol import data
from taskd.protocol.saved import Mark, Saved
from taskd.record import Record
from taskd.worker import output
from taskd.worker.failure import one_line, summary

if TYPE_CHECKING:
    from taskd.tasks import Migration, Task


class Unfit(Exception):
    """The code here cannot run with these arguments and this state; the text says why."""


class Start(Record):
    """What an attempt begins with.

    ``args``: bound to the function's parameters. ``saved``: at the code's version. ``migrations``:
    how many have run. ``rebase``: what is stored is of another version, so that records of this
    attempt mean nothing on top of it (see ``Journal.rebase``).
    """

    args: Mapping[str, Any]
    saved: Saved
    migrations: int
    rebase: bool


def fit(
    task: Task[..., Any],
    args: Mapping[str, Any],
    saved: Saved | None,
    submitted_at: int | None = None,
) -> Start:
    """What an attempt of ``task`` begins with; ``saved`` itself where it needs no migration.

    ``submitted_at``: the task's version at submission, which counts where nothing is saved; None:
    the code's own. Raises Unfit.
    """
    try:
        version = task.version if submitted_at is None else submitted_at
        stored = Saved(version) if saved is None else saved
        chain = task.chain(stored.version)
        if chain is None and not stored.empty:
            raise Unfit(_no_chain(task, stored.version))
        begin = stored
        if chain:
            begin = Saved(stored.version)
            begin.args = dict(args) if stored.args is None else stored.args
            begin.steps, begin.cursors, begin.state = stored.steps, stored.cursors, stored.state
            for migration in chain:
                begin = _step(task, migration, begin)
        elif stored.version != task.version:
            begin = Saved(task.version)  # nothing is saved; the arguments are taken as they are
        bound = args if begin.args is None else deepcopy(begin.args)  # the task may change them
        if (why := task.unbound(bound)) is not None:
            raise Unfit(f"its arguments no longer bind: {why}")
        return Start(bound, begin, len(chain or ()), rebase=stored.version != task.version)
    except Unfit:
        raise
    except BaseException as error:  # raised by an object of the app's
        raise Unfit(f"what a migration of '{task.name}' left {summary(error)}") from error


def _no_chain(task: Task[..., Any], version: int) -> str:
    why = f"the state of '{task.name}' was saved by version {version}, this code is version "
    if version > task.version:
        return f"{why}{task.version}"
    missing = next(n for n in range(version, task.version) if n not in task.migrations)
    return (
        f"{why}{task.version}, and there is no migration from version {missing} to {missing + 1} "
        f"(@{task.name}.migrate({missing}))"
    )


def _step(task: Task[..., Any], migration: Migration, before: Saved) -> Saved:
    """The state after one migration, checked and read back from its bytes."""
    name = getattr(migration, "__qualname__", repr(migration)).rpartition(".")[2]
    which = (
        f"the migration of '{task.name}' from version {before.version} to {before.version + 1} "
        f"({name}, {place(migration)})"
    )
    cursors = {path: _shown(mark) for path, mark in before.cursors.items()}
    given = SavedState(*deepcopy((before.args or {}, before.steps, cursors, before.state)))
    pid = os.getpid()
    try:
        returned: Any = migration(given)
    except BaseException as error:  # the boundary to user code: all of it is reported
        output.leave_if_child(pid)
        raise Unfit(f"{which} {summary(error)}") from error
    output.leave_if_child(pid)
    if returned is None:
        returned = given
    if not issubclass(type(returned), SavedState):
        raise Unfit(f"{which} returned {type(returned).__name__}: it must return what it was given")
    try:
        after = _taken(returned, before)
        after.version = before.version + 1
        return Saved.decode(after.encode())
    except (NotPlainData, ProtocolError, _WrongError) as error:
        raise Unfit(f"what {which} left cannot be saved: {one_line(str(error))}") from None


def _shown(mark: Mark) -> Any:
    return FINISHED if mark.finished else mark.cursor


class _WrongError(Exception):
    """The state cannot be saved, although it is plain data."""


def _taken(given: SavedState, before: Saved) -> Saved:
    """``given`` as a Saved, checked. Raises NotPlainData and _WrongError."""
    for name in SavedState.__slots__:
        if (kind := type(getattr(given, name))) is not dict:
            raise _WrongError(f"saved.{name} must be a dict, not {kind.__name__}")
    for name in given.args:
        if type(name) is not str:
            raise _WrongError(f"saved.args has a key {name!r:.100}: arguments go by their names")
    for name in ("steps", "cursors"):
        for path in getattr(given, name):
            if type(path) is not str or not all(path.split("/")):
                raise _WrongError(f"saved.{name} has a key {path!r:.100}, which is no path")
    for path, cursor in given.cursors.items():
        if cursor is not None and path in given.steps:
            raise _WrongError(f"{path!r} is in saved.steps and in saved.cursors")
    saved = Saved(before.version)
    saved.args, saved.steps, saved.state = given.args, given.steps, given.state
    data.encode(saved.args, "saved.args", data.ARGUMENTS_LIMIT)
    for path, value in saved.steps.items():
        data.encode(value, f'saved.steps["{path}"]', data.RESULT_LIMIT)
    data.encode(saved.state, "saved.state", data.SAVED_LIMIT)
    saved.cursors = _marks(before.cursors, given.cursors)
    if saved.size > data.SAVED_LIMIT:
        raise _WrongError(f"it takes {saved.size:,} bytes; the limit is {data.SAVED_LIMIT:,}")
    return saved


def _marks(before: Mapping[str, Mark], cursors: Mapping[str, Any]) -> dict[str, Mark]:
    """A Mark for each cursor; a cursor that moved to a new path keeps the rest of its mark."""
    raws = {path: _raw(path, cursor) for path, cursor in cursors.items()}
    gone: dict[bytes, list[Mark]] = {}
    for path, mark in before.items():
        raw = _raw(path, _shown(mark))
        if raws.get(path) != raw:
            gone.setdefault(raw, []).append(mark)
    found: dict[str, Mark] = {}
    for path, cursor in cursors.items():
        if cursor is None:
            continue
        was = before.get(path)
        done, total = (0, None) if was is None else (was.done, was.total)
        candidates = gone.get(raws[path], [])
        if was is not None and _raw(path, _shown(was)) == raws[path]:
            found[path] = was
        elif candidates and all(each == candidates[0] for each in candidates):
            found[path] = candidates[0]._replace(moved=True)
        elif cursor is FINISHED:
            found[path] = Mark(None, done, total, finished=True)
        else:
            found[path] = Mark(cursor, done, total, moved=True)
    return found


def _raw(path: str, cursor: Any) -> bytes:
    """The bytes of a cursor; equal for equal cursors, and only for them."""
    if cursor is FINISHED:
        return b"finished"  # text would begin with its length: no cursor's encoding is this
    return data.encode(cursor, f'saved.cursors["{path}"]', data.CURSOR_LIMIT)

"""Bringing what an older version of a task saved to the version of the code that is here.

Runs in workers, and in tests. Migrations are the app's own functions (``@fn.migrate(n)``), each
from what version n saved to version n + 1. They are given a copy; what was saved stays as it is
until the task saves again, so that a deploy may be rolled back before that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from taskd.errors import Error
from taskd.model.versions import readable
from taskd.protocol.saved import Mark, Saved

if TYPE_CHECKING:
    from taskd.tasks import Task


class Unfit(Exception):
    """This code cannot take that state; the text says why."""


class Fitted(NamedTuple):
    """Arguments and state at the code's version. ``migrated``: they are not as they were saved."""

    args: dict[str, Any]
    saved: Saved
    migrated: bool


def fit(
    task: Task[..., Any], args: Mapping[str, Any], saved: Saved | None, version: int | None
) -> Fitted:
    """What an attempt of ``task`` begins with.

    ``version``: of the task function when the task was submitted, which counts where nothing is
    saved (None: the code's own). Where nothing is saved and no chain leads here, the arguments are
    taken as they are. Raises Unfit.
    """
    has_state = saved is not None and not saved.empty
    start = saved if saved is not None else Saved(task.version)
    given = dict(args) if start.args is None else start.args
    at = start.version if has_state else version
    if at is None or at == task.version:
        start.version = task.version
        return Fitted(given, start, False)
    if at in readable(task.version, task.migrations):
        return _migrated(task, given, start, at)
    if has_state:
        raise Unfit(_no_way(task, at))
    start.version = task.version
    return Fitted(given, start, False)


def _no_way(task: Task[..., Any], version: int) -> str:
    what = f"its state was saved by version {version} of '{task.name}', and the code here is"
    if version > task.version:
        return f"{what} version {task.version}, which is older"
    missing = next(n for n in range(task.version - 1, 0, -1) if n not in task.migrations)
    return f"{what} version {task.version}, with no migration from version {missing}"


def _migrated(task: Task[..., Any], args: dict[str, Any], saved: Saved, version: int) -> Fitted:
    current = Saved.decode(saved.encode())
    current.args = args
    for number in range(version, task.version):
        current.version = number + 1
        current = _checked(task, number, _run(task, number, current))
    assert current.args is not None
    return Fitted(current.args, current, True)


def _run(task: Task[..., Any], number: int, saved: Saved) -> Saved:
    """One step of the chain."""
    function: Callable[[Saved], Saved | None] = task.migrations[number]
    try:
        returned = function(saved)
    except Exception as error:
        raise Unfit(f"{_which(task, number)} raised {type(error).__name__}: {error}") from error
    except SystemExit as error:
        raise Unfit(f"{_which(task, number)} called sys.exit({error.code!r})") from error
    result = saved if returned is None else returned
    if not isinstance(result, Saved):
        raise Unfit(
            f"{_which(task, number)} returned {type(result).__name__}, not what it was given"
        )
    result.version = number + 1
    return result


def _checked(task: Task[..., Any], number: int, saved: Saved) -> Saved:
    """It is plain data, and what is read back is what was meant."""
    try:
        for path, mark in list(saved.cursors.items()):
            if mark is None:
                del saved.cursors[path]  # "no such loop", as pop(name, None) gives it
            elif not isinstance(mark, Mark):
                saved.cursors[path] = Mark(mark, 0)
        again = Saved.decode(saved.encode())
    except (Error, TypeError, AttributeError) as error:
        raise Unfit(f"what {_which(task, number)} gave cannot be saved: {error}") from error
    if not isinstance(saved.args, dict) or not all(isinstance(key, str) for key in saved.args):
        raise Unfit(f"{_which(task, number)} left arguments that are not a dict with text keys")
    return again


def _which(task: Task[..., Any], number: int) -> str:
    from taskd.tasks import place

    where = place(task.migrations[number])
    return f"the migration of '{task.name}' from version {number} ({where})"

"""Functions of the app's that run in each worker beside its tasks: ``@on_task_start`` and so on.

An app registers them where it is imported, as it does its tasks; ``worker.hooks`` runs them. What
begins runs in the order of registration, what ends in the reverse order.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from taskd.api import checks
from taskd.record import Record

F = TypeVar("F", bound=Callable[..., Any])

WORKER_START, WORKER_STOP = "on_worker_start", "on_worker_stop"
TASK_START, TASK_END = "on_task_start", "on_task_end"

_TAKES = {WORKER_START: (), WORKER_STOP: (), TASK_START: ("task",), TASK_END: ("task", "end")}
"""What the functions of each event are called with."""

registered: dict[str, list[Callable[..., Any]]] = {event: [] for event in _TAKES}
"""By event, in the order in which they are run."""


class TaskInfo(Record):
    """The task that begins or has ended: its id, as ``ctx.id``; name, attempt and revision; its
    arguments, after migrations."""

    id: str
    name: str
    attempt: int
    revision: str
    args: Mapping[str, Any]


class TaskEnd(Record):
    """How an attempt ended. ``outcome``: "succeeded", "failed" (perhaps to be tried again), "left"
    (asked to, for a deploy or a stop), "cancelled", "held", "sleeping" or "yielded". ``exception``:
    what the task raised, if it failed. ``seconds``: how long it ran."""

    outcome: str
    exception: BaseException | None
    seconds: float


def on_worker_start(fn: F) -> F:
    """Have ``fn()`` called in each new worker before its first task: where connections are opened
    and reporters are set up. Raises TypeError for what cannot be called so."""
    return _register(WORKER_START, fn)


def on_worker_stop(fn: F) -> F:
    """Have ``fn()`` called when a worker ends, unless it is killed: where buffers are flushed.
    Raises TypeError for what cannot be called so."""
    return _register(WORKER_STOP, fn)


def on_task_start(fn: F) -> F:
    """Have ``fn(task)`` called before each attempt of each task, in the same thread and context
    (contextvars); ``task`` is a TaskInfo. Raises TypeError for what cannot be called so."""
    return _register(TASK_START, fn)


def on_task_end(fn: F) -> F:
    """Have ``fn(task, end)`` called after each attempt that has begun, once its end is kept and
    whatever it is; ``end`` is a TaskEnd. Raises TypeError for what cannot be called so."""
    return _register(TASK_END, fn)


def _register(event: str, fn: F) -> F:
    takes = _TAKES[event]
    how = f"@{event} needs a plain function of {len(takes)} arguments ({', '.join(takes)})"
    if not takes:
        how = f"@{event} needs a plain function without arguments"
    if not callable(fn):
        raise TypeError(f"{how}, not {type(fn).__name__}: write it without parentheses")
    if inspect.iscoroutinefunction(fn) or inspect.isgeneratorfunction(fn):
        raise TypeError(f"{how}: {checks.place(fn)} would run nothing when it is called")
    try:
        inspect.signature(fn).bind(*takes)
    except TypeError as error:
        raise TypeError(f"{how}: {checks.place(fn)}: {error}") from None
    except ValueError:
        pass  # of a function in C, which does not tell
    before = [known for known in registered[event] if checks.place(known) != checks.place(fn)]
    begins = event in (WORKER_START, TASK_START)
    registered[event] = [*before, fn] if begins else [fn, *before]
    return fn

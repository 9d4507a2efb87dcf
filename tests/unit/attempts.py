"""Run single attempts against a keeper in memory; used by the tests of the task API."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from taskd.protocol import data
from taskd.protocol.saved import Saved
from taskd.tasks import make_task
from taskd.worker.attempt import Ending, run_attempt
from taskd.worker.memory_recorder import MemoryKeeper


def attempt(
    fn: Callable[..., Any],
    args: Mapping[str, Any] | None = None,
    keeper: MemoryKeeper | None = None,
    saved: Saved | None = None,
    calm: Callable[[], None] = lambda: None,
    **options: Any,
) -> Ending:
    """One attempt of ``fn`` as a task."""
    keeper = MemoryKeeper() if keeper is None else keeper
    own = None if saved is None else Saved.decode(saved.encode())
    task = make_task(fn, **options)
    return run_attempt(task, args or {}, own, keeper, clock=keeper.clock, calm=calm)


def result(ending: Ending) -> Any:
    """What the task returned; fails with what it raised."""
    if ending.exception is not None:
        raise ending.exception
    assert ending.result is not None, ending
    return data.decode(ending.result)


def outcome(fn: Callable[..., Any], *args: Any, **more: Any) -> Any:
    """What ``fn`` returns in one undisturbed attempt, or the error it raises."""
    return result(attempt(fn, *args, **more))

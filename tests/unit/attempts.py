"""Run single attempts against a recorder in memory; used by the tests of the task API."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from taskd.protocol import data
from taskd.protocol.saved import Saved
from taskd.tasks import make_task
from taskd.worker.attempt import Ending, run_attempt
from taskd.worker.memory_recorder import MemoryRecorder


def attempt(
    fn: Callable[..., Any],
    args: Mapping[str, Any] | None = None,
    recorder: MemoryRecorder | None = None,
    saved: Saved | None = None,
    calm: Callable[[], None] = lambda: None,
    **options: Any,
) -> Ending:
    """One attempt of ``fn`` as a task."""
    recorder = MemoryRecorder() if recorder is None else recorder
    own = None if saved is None else Saved.decode(saved.encode())
    task = make_task(fn, **options)
    return run_attempt(task, args or {}, own, recorder, clock=recorder.clock, calm=calm)


def result(ending: Ending) -> Any:
    """What the task returned; fails with what it raised."""
    if ending.exception is not None:
        raise ending.exception
    assert ending.result is not None, ending
    return data.decode(ending.result)


def outcome(fn: Callable[..., Any], *args: Any, **more: Any) -> Any:
    """What ``fn`` returns in one undisturbed attempt, or the error it raises."""
    return result(attempt(fn, *args, **more))

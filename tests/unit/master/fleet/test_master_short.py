"""A master that is short of descriptors at one moment, at the places where a new image opens files
for the first time: nothing may be half done there."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bench import Bench
from support.answers import Reading

from taskd.master.loop.trouble import NO_WORKER
from taskd.model.task import State
from taskd.posix import cgroup, process


def short_once(monkeypatch: pytest.MonkeyPatch, where: Any, name: str) -> list[int]:
    """The next call of that function finds no descriptor; how often it was called."""
    real: Callable[..., Any] = getattr(where, name)
    calls: list[int] = []

    def call(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), f"/proc/{name}")
        return real(*arguments, **named)

    monkeypatch.setattr(where, name, call)
    return calls


def test_a_task_that_could_not_be_claimed_is_claimed_soon_and_keeps_no_place(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = bench.submit()
    worker = bench.fork()
    calls = short_once(monkeypatch, process, "boot_id")
    order = bench.run(worker)
    assert len(calls) > 1, "it was tried again"
    assert order["task"] == task and bench.master.attempts.occupied["default"] == 1
    bench.end(worker, order)
    bench.until(lambda: bench.master.attempts.occupied["default"] == 0, "its place is free")
    row = Reading(bench.master.storage.reader).task(task)
    assert row is not None and (row.state, row.attempt) == (State.SUCCEEDED, 1)


def test_a_group_that_cannot_be_looked_for_now_is_not_taken_for_none(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = short_once(monkeypatch, cgroup, "find")
    task = bench.submit()
    bench.until(lambda: bench.master.loop.troubles.why(NO_WORKER), "it is told")
    assert list(bench.master.workers) == [], "none is waited for that was not asked for"
    worker = bench.fork()
    assert len(calls) == 2, "looked for again, and known from then on"
    assert bench.run(worker)["task"] == task


def test_whether_there_are_groups_is_not_known_without_a_descriptor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def no_more(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("builtins.open", no_more)
    with pytest.raises(OSError, match="Too many open files"):
        cgroup.find()


def test_an_image_that_begins_to_serve_short_of_descriptors_reaps_later(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old image is given the daemon back, and cannot tell yet whether a worker is gone."""
    calls = short_once(monkeypatch, bench.master.children, "reap")
    bench.master.serve()
    bench.until(lambda: len(calls) == 2)

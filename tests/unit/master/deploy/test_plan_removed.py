"""A plan asks about tasks that an operator removes meanwhile (`taskctl gc`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from bench import Bench

from taskd.errors import DeployRefused
from taskd.master.deploy.guard import Guard
from taskd.master.deploy.plan_questions import Planning, Sources
from taskd.model.plan import Plan
from taskd.protocol import data
from taskd.store.api import Cancel, Operation, Purge
from taskd.store.queries import StoredData


def asked(bench: Bench) -> tuple[list[Any], list[Callable[[], None]]]:
    """A plan begins; its outcome, and its questions for arguments, not put to the store yet."""
    master, outcome, questions = bench.master, [], []
    ask = master.storage.ask

    def put_off(query: Any, done: Any) -> None:
        if isinstance(query, StoredData):
            questions.append(lambda: ask(query, done))
        else:
            ask(query, done)

    master.storage.ask = put_off  # type: ignore[method-assign]
    parts = (master.revisions, master.workers, master.attempts, master.pauses, master.schedules)
    where = (master.loop, master.places, master.storage)
    sources = Sources(*where, *parts, master.dispatch.limits)
    Planning(sources, bench.revision, Guard(outcome.append), outcome.append)
    return outcome, questions


def write(bench: Bench, *operations: Operation) -> None:
    done: list[Any] = []
    for operation in operations:
        bench.master.storage.write(operation, done.append)
    bench.until(lambda: len(done) == len(operations))


@pytest.mark.parametrize("which", [0, 1])
def test_a_plan_that_asks_about_a_removed_task_refuses_the_deploy(bench: Bench, which: int) -> None:
    shapes = [data.encode({"a": 1}), data.encode({"b": 1})]
    waits = [bench.new_task({"name": "work", "args": each, "delay": 99.0}) for each in shapes]
    outcome, questions = asked(bench)
    bench.fork()
    bench.until(lambda: questions)
    write(bench, Cancel(waits[which], None, 1.0), Purge((waits[which],), None, 1))
    questions.pop()()
    bench.until(lambda: outcome)
    assert isinstance(outcome[0], DeployRefused)
    assert f"task {waits[which]}, which the plan asks about, was removed" in str(outcome[0])


def test_a_plan_goes_on_without_a_task_that_ran_and_is_removed(bench: Bench) -> None:
    task = bench.submit()
    worker = bench.fork()
    order = bench.run(worker)
    outcome, questions = asked(bench)
    probe = bench.fork()
    bench.until(lambda: questions)
    bench.end(worker, order)
    bench.until(lambda: not len(bench.master.attempts))
    write(bench, Purge((task,), None, 1))
    questions.pop()()
    bench.until(lambda: probe.of("plan"))
    probe.send({"type": "planned", "refused": [], "probe": None})
    bench.until(lambda: outcome)
    assert isinstance(outcome[0], Plan)

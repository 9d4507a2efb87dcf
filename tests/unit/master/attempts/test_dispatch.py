"""What the store has given to a worker reaches it, or is given back, whatever comes between."""

from __future__ import annotations

import os
from typing import Any

import pytest
from bench import Bench
from support.answers import Reading

from taskd.master.loop.life import LifeEvent
from taskd.model.task import Budgets, State
from taskd.model.worker import WorkerState
from taskd.store.api import Take


def test_a_task_whose_arguments_find_no_room_waits_with_its_worker_and_holds_up_no_other(
    bench: Bench,
) -> None:
    task = bench.submit(text="x" * 100_000)
    asked = bench.until(lambda: bench.zygote.of("fork"))[0]
    obstacle = os.path.join(bench.master.places.slots, f"{asked['worker'].hex()}.load")
    os.mkdir(obstacle)
    worker = bench.fork()
    troubles = bench.master.loop.troubles
    bench.until(lambda: troubles.sentences())
    assert "a task cannot be handed to its worker: Is a directory" in troubles.sentences()[0]
    running = bench.master.attempts.get(task)
    assert running is not None and "cannot be handed to its worker yet" in str(running.waiting)
    other = bench.submit()
    assert bench.run(bench.fork())["task"] == other
    os.rmdir(obstacle)
    order = bench.run(worker)
    assert (order["task"], order["attempt"]) == (task, 1)
    assert running.waiting is None


def test_a_task_that_cannot_be_handed_to_its_worker_holds_up_no_deploy(bench: Bench) -> None:
    task = bench.submit(text="x" * 100_000)
    asked = bench.until(lambda: bench.zygote.of("fork"))[0]
    os.mkdir(os.path.join(bench.master.places.slots, f"{asked['worker'].hex()}.load"))
    worker = bench.fork()
    bench.until(lambda: task in bench.master.attempts)
    life = bench.master.life
    life.take(LifeEvent.HOLD)
    bench.until(lambda: task not in bench.master.attempts)
    row: Any = Reading(bench.master.storage.reader).task(task)
    assert (row.state, row.attempt, row.budgets) == (State.QUEUED, 1, Budgets())
    assert "it could not be handed to a worker" in row.reason
    assert bench.master.workers.get(worker.id).state is WorkerState.IDLE  # type: ignore[union-attr]


@pytest.mark.parametrize("event", [LifeEvent.STOP, LifeEvent.HOLD])
def test_what_the_store_takes_while_a_stop_begins_is_given_back(
    bench: Bench, event: LifeEvent
) -> None:
    """And while a deploy begins it is sent: nothing is half done then."""
    held: list[tuple[Any, Any]] = []
    write = bench.master.storage.write

    def hold(operation: Any, done: Any) -> None:
        if isinstance(operation, Take):
            held.append((operation, done))
        else:
            write(operation, done)

    bench.master.storage.write = hold  # type: ignore[method-assign]
    task = bench.submit()
    worker = bench.fork()
    bench.until(lambda: held)
    if event is LifeEvent.STOP:
        bench.master.stop.begin()
    else:
        bench.master.life.take(event)
    write(*held[0])
    if event is LifeEvent.STOP:
        bench.until(lambda: worker.of("retire"))
        row: Any = Reading(bench.master.storage.reader).task(task)
        assert (row.state, row.attempt, row.budgets) == (State.QUEUED, 1, Budgets())
    else:
        assert bench.run(worker)["task"] == task


def test_a_task_that_is_passed_over_for_one_taken_already_is_looked_at_again(bench: Bench) -> None:
    """The store has given the worker its task, and the master has not heard of it yet."""
    heard: list[tuple[Any, Any]] = []
    write = bench.master.storage.write

    def late(operation: Any, done: Any) -> None:
        is_take = isinstance(operation, Take)
        write(operation, (lambda outcome: heard.append((done, outcome))) if is_take else done)

    bench.master.storage.write = late  # type: ignore[method-assign]
    bench.submit()
    worker = bench.fork()
    bench.until(lambda: heard)
    other = bench.submit()
    for _ in range(3):
        bench.turn()
    done, outcome = heard[0]
    bench.master.storage.write = write  # type: ignore[method-assign]
    done(outcome)
    assert worker.of("run") or bench.run(worker)
    assert bench.run(bench.fork())["task"] == other

"""What the store has given to a worker reaches it, or is given back, whatever comes between."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
from bench import Bench, PlayedWorker
from support.answers import Reading

from taskd.errors import StoreError
from taskd.master.fleet import Revision
from taskd.master.loop.life import LifeEvent
from taskd.model.revision import RevisionState
from taskd.model.task import Budgets, State
from taskd.model.upgrade import Phase
from taskd.model.worker import WorkerState
from taskd.store.api import Cancel, Take


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


# ── a worker that ends a task has another at once ────────────────────────────────────────────


def chained(bench: Bench) -> tuple[PlayedWorker, int]:
    """A worker that was noted and is not idle yet, and the task that was taken for it."""
    bench.submit()
    worker = bench.fork()
    order = bench.run(worker)
    other = bench.submit()
    batches: list[list[str]] = []
    together = bench.master.storage.writer.submit_together

    def noting(works: Any) -> None:
        batches.append([type(operation).__name__ for operation, _ in works])
        together(works)

    bench.master.storage.writer.submit_together = noting  # type: ignore[method-assign]
    bench.end(worker, order, free=True)
    bench.until(lambda: worker.of("noted"))
    bench.until(lambda: other in bench.master.attempts)
    assert ["Settle", "Take"] in batches
    assert len(worker.of("run")) == 1, "it is not free yet"
    return worker, other


def die(bench: Bench, worker: PlayedWorker) -> None:
    worker.sock.close()
    bench.is_dead(worker.id)
    dead = {"type": "exited", "worker": worker.id, "pid": os.getpid(), "status": signal.SIGKILL}
    bench.zygote.send(dead)


def state(bench: Bench, task: int) -> Any:
    return Reading(bench.master.storage.reader).task(task)


def test_an_end_and_the_next_task_are_one_transaction(bench: Bench) -> None:
    worker, other = chained(bench)
    assert state(bench, other).state is State.RUNNING
    bench.master.attempts.ask(other, "leave", "a test")
    worker.send({"type": "idle", "reusable": True})
    order = bench.until(lambda: worker.of("run")[1:])[0]
    assert (order["task"], order["attempt"]) == (other, 1)
    assert bench.until(lambda: worker.of("leave"))[0]["task"] == other


def test_an_old_revision_keeps_no_worker_for_a_task_that_another_has_run(bench: Bench) -> None:
    """A late answer said that the task still waits, just before the worker became idle."""
    bench.submit()
    worker = bench.fork()
    order = bench.run(worker)
    old = bench.revision
    bench._revision(old.path.replace("r1", "r2"))
    bench.master.workers.want(old, 1)
    bench.end(worker, order)
    worker.send({"type": "idle", "reusable": True})
    bench.until(lambda: worker.of("retire"))


def test_a_task_goes_to_another_worker_if_the_one_it_was_taken_for_is_used_up(
    bench: Bench,
) -> None:
    worker, other = chained(bench)
    worker.send({"type": "idle", "reusable": False})
    bench.until(lambda: worker.of("retire"))
    order = bench.run(bench.fork())
    assert (order["task"], order["attempt"]) == (other, 2)
    assert state(bench, other).budgets == Budgets()


def test_a_task_whose_worker_dies_before_it_is_sent_is_queued_again(bench: Bench) -> None:
    worker, other = chained(bench)
    slot = os.path.join(bench.master.places.slots, worker.slot.name)
    die(bench, worker)
    bench.until(lambda: state(bench, other).state is State.QUEUED)
    assert (state(bench, other).attempt, state(bench, other).budgets) == (1, Budgets())
    bench.until(lambda: not os.path.exists(slot))
    assert not bench.master.attempts.unsent
    assert bench.run(bench.fork())["attempt"] == 2


def test_a_deploy_waits_until_a_task_that_was_taken_is_sent(bench: Bench) -> None:
    worker, other = chained(bench)
    bench.master.life.take(LifeEvent.HOLD)
    progress = bench.master.deploy.progress
    progress.phase = Phase.QUIESCING
    assert "claims: 1" in progress.waits_for()
    worker.send({"type": "idle", "reusable": True})
    assert bench.until(lambda: worker.of("run")[1:])[0]["task"] == other
    assert not [each for each in progress.waits_for() if each.startswith("claims")]
    progress.phase = Phase.IDLE


def test_a_slot_whose_end_could_not_be_recorded_stays_though_its_worker_died(bench: Bench) -> None:
    bench.submit()
    worker = bench.fork()
    order = bench.run(worker)
    bench.submit()
    held: list[Any] = []
    storage = bench.master.storage
    together = storage.write_together

    def failing(works: Any) -> None:
        held.extend(works)

    storage.write_together = failing  # type: ignore[method-assign]
    bench.end(worker, order, free=True)
    bench.until(lambda: len(held) == 2)
    storage.write_together = together  # type: ignore[method-assign]
    slot = os.path.join(bench.master.places.slots, worker.slot.name)
    die(bench, worker)
    bench.until(lambda: bench.master.workers.get(worker.id) is None)
    for _, done in held:
        done(StoreError("the disk is full"))
    assert os.path.exists(slot)
    bench.until(lambda: state(bench, order["task"]).state is State.SUCCEEDED)


# ── a take whose answer the master has not heard ─────────────────────────────────────────────


def unheard(bench: Bench) -> tuple[int, PlayedWorker, Callable[[], None]]:
    """A task that the store has given to a worker, and what tells the master so."""
    heard: list[tuple[Any, Any]] = []
    write = bench.master.storage.write

    def late(operation: Any, done: Any) -> None:
        is_take = isinstance(operation, Take)
        write(operation, (lambda outcome: heard.append((done, outcome))) if is_take else done)

    bench.master.storage.write = late  # type: ignore[method-assign]
    task = bench.submit()
    worker = bench.fork()
    bench.until(lambda: heard)
    bench.master.storage.write = write  # type: ignore[method-assign]
    done, outcome = heard[0]
    return task, worker, lambda: done(outcome)


def drains(bench: Bench) -> Revision:
    """The revision, which is not the current one any more, and alone has the task "work"."""
    old, zygote = bench.revision, bench.zygote
    newer = bench._revision(old.path.replace("r1", "r2"))
    newer.tasks = {"other": newer.tasks["other"]}
    bench.zygote = zygote
    return old


def is_buried(bench: Bench, worker: PlayedWorker) -> None:
    die(bench, worker)
    bench.until(lambda: bench.master.workers.get(worker.id) is None)
    for _ in range(3):
        bench.turn()


def test_a_task_that_was_taken_just_now_is_none_without_an_owner(bench: Bench) -> None:
    """The look for those comes between the commit and its answer."""
    task, worker, tell = unheard(bench)
    bench.master.unowned.sweep()
    bench.turn()
    assert task not in bench.master.attempts
    tell()
    bench.end(worker, bench.run(worker))
    bench.until(lambda: state(bench, task).state is State.SUCCEEDED)
    bench.until(lambda: not len(bench.master.attempts))
    assert not bench.master.attempts.occupied, "its place is free again"


def test_a_revision_stays_while_a_task_may_be_given_to_its_dead_worker(bench: Bench) -> None:
    """Else nothing could run the task that is given back."""
    task, worker, tell = unheard(bench)
    old = drains(bench)
    is_buried(bench, worker)
    tell()
    bench.until(lambda: state(bench, task).state is not State.RUNNING)
    for _ in range(3):
        bench.turn()
    assert (state(bench, task).state, old.state) == (State.QUEUED, RevisionState.DRAINING)


def test_a_revision_goes_once_no_task_was_given_to_its_dead_worker(bench: Bench) -> None:
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
    old = drains(bench)
    is_buried(bench, worker)
    write(Cancel(task, None, 1.0), lambda _: None)
    assert old.state is RevisionState.DRAINING
    write(*held[0])
    bench.until(lambda: old.state is RevisionState.GONE)

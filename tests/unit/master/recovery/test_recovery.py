"""The sweep for tasks without an owner: what one cannot do, the next one does."""

from __future__ import annotations

import os
import secrets

import cbor2
import pytest
from bench import Bench
from support.answers import Reading
from support.taking import claim

from taskd.master.loop.life import LifeState
from taskd.master.recovery import unowned
from taskd.model.task import State
from taskd.posix import process
from taskd.posix.process import Identity
from taskd.store.reader import SqliteReader


def of_a_dead_worker(bench: Bench) -> int:
    """A task that runs, as the store has it, on a worker of another boot; its id."""
    task = bench.submit("work")
    who = Identity(os.getpid(), 1, process.boot_id()[::-1])
    owner = cbor2.dumps([secrets.token_bytes(16), *who])
    answers: list[object] = []
    bench.master.storage.write(claim(task, worker=owner), answers.append)
    bench.until(lambda: answers)
    return task


def state_of(bench: Bench, task: int) -> State:
    row = Reading(bench.master.storage.reader).task(task)
    assert row is not None
    return row.state


@pytest.mark.parametrize("is_up", [True, False], ids=["serving", "in a deploy"])
def test_a_sweep_that_could_not_read_the_store_is_made_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, is_up: bool
) -> None:
    monkeypatch.setattr(unowned, "SWEEP_EVERY", 0.05)
    life = bench.master.life
    life.state = LifeState.STARTING  # nobody but the test claims the task
    task = of_a_dead_worker(bench)
    life.state = LifeState.SERVING if is_up else LifeState.ADOPTING
    bench.master.storage.reader.close()
    bench.master.unowned.sweep()
    passed: list[bool] = []  # once a sweep was due
    bench.master.loop.after(2 * unowned.SWEEP_EVERY, lambda: passed.append(True))
    bench.until(lambda: passed)
    bench.master.storage.reader = SqliteReader(bench.master.places.store)
    assert task not in bench.master.attempts
    life.state = LifeState.SERVING
    bench.until(lambda: state_of(bench, task) is State.HELD)

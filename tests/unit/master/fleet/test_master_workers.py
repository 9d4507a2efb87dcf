"""The master and its workers: every end counted once, whoever dies or talks nonsense meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from bench import Bench, Line, PlayedClient, PlayedWorker
from support.answers import Reading

from taskd.master.fleet import introductions, workers
from taskd.master.loop.loop import Loop, Timer
from taskd.model.task import State
from taskd.paths import WORKER_SOCKET
from taskd.posix import process
from taskd.protocol import data
from taskd.protocol.saved import Kind
from taskd.store.api import Take


def row(bench: Bench, task: int) -> Any:
    return Reading(bench.master.storage.reader).task(task)


def settled(bench: Bench, task: int) -> bool:
    return row(bench, task).state is not State.RUNNING and task not in bench.master.attempts


def exited(bench: Bench, worker: PlayedWorker, status: int = signal.SIGKILL) -> None:
    """Its zygote says that it is dead, and so is what it had open."""
    worker.sock.close()
    me = os.getpid()
    bench.is_dead(worker.id)
    bench.zygote.send({"type": "exited", "worker": worker.id, "pid": me, "status": status})


def saved_step(worker: PlayedWorker, name: str, value: Any) -> None:
    worker.slot.append(Kind.STEP, {"path": name, "value": data.encode(value)})


def test_a_task_is_run_and_its_end_recorded_before_it_is_noted(bench: Bench) -> None:
    task = bench.submit()
    worker = bench.fork()
    order = bench.run(worker)
    assert (order["task"], order["attempt"], row(bench, task).attempt) == (task, 1, 1)
    bench.end(worker, order, result=data.encode(42))
    noted = bench.until(lambda: worker.of("noted"))[0]
    assert (noted["task"], noted["answer"]) == (task, "recorded")
    assert row(bench, task).state is State.SUCCEEDED
    assert data.decode(Reading(bench.master.storage.reader).result(task) or b"") == 42


def test_a_death_is_settled_from_the_slot_and_the_slot_removed(bench: Bench) -> None:
    task = bench.submit()
    worker = bench.fork()
    bench.run(worker)
    saved_step(worker, "count", 7)
    exited(bench, worker)
    bench.until(lambda: settled(bench, task))
    found = row(bench, task)
    assert (found.state, found.saved_version, found.budgets.crashes) == (State.QUEUED, 1, 1)
    assert "SIGKILL" in found.reason
    assert not os.path.exists(os.path.join(bench.master.places.slots, worker.slot.name))
    assert bench.zygote.of("noted") or bench.until(lambda: bench.zygote.of("noted"))


def test_a_worker_that_ended_and_died_at_once_leaves_one_end(bench: Bench) -> None:
    task = bench.submit()
    worker = bench.fork()
    order = bench.run(worker)
    bench.end(worker, order)
    exited(bench, worker)
    bench.until(lambda: settled(bench, task))
    bench.until(lambda: not bench.master.storage.writer.pending)
    assert row(bench, task).state is State.SUCCEEDED
    assert bench.master.attempts.occupied["default"] == 0


def test_an_end_recorded_twice_does_not_free_the_place_of_the_next_attempt(bench: Bench) -> None:
    """The worker dies while its end is being committed, and its slot is settled as well."""
    task = bench.submit()
    worker = bench.fork()
    order = bench.run(worker)
    attempts = bench.master.attempts
    first = attempts.get(task)
    assert first is not None
    bench.end(worker, order, outcome="left")
    bench.until(lambda: settled(bench, task) or attempts.get(task) is not first)
    exited(bench, worker)
    second = bench.fork()
    bench.run(second)
    assert attempts.get(task) is not first
    attempts.release(first)
    assert attempts.get(task) is not None
    assert (attempts.occupied["default"], attempts.worker_of(task) is not None) == (1, True)


def test_an_attempt_that_was_never_begun_is_queued_again(bench: Bench) -> None:
    task = bench.submit()
    worker = bench.fork()
    bench.until(lambda: worker.of("run"))
    exited(bench, worker)
    bench.until(lambda: settled(bench, task))
    assert row(bench, task).state is State.QUEUED
    assert row(bench, task).budgets.crashes == 0


def test_a_worker_that_died_before_its_claim_was_committed_leaves_no_slot(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its slot says that nothing was begun, and is needed for no longer than that takes."""
    claims: list[tuple[Any, Any]] = []
    write = bench.master.storage.write

    def hold(operation: Any, done: Any) -> None:
        if isinstance(operation, Take):
            claims.append((operation, done))
        else:
            write(operation, done)

    monkeypatch.setattr(bench.master.storage, "write", hold)
    task = bench.submit()
    worker = bench.fork()
    bench.until(lambda: claims)
    exited(bench, worker)
    bench.until(lambda: bench.master.workers.get(worker.id) is None)
    slot = os.path.join(bench.master.places.slots, worker.slot.name)
    assert os.path.exists(slot)
    write(*claims[0])
    bench.until(lambda: not os.path.exists(slot))
    assert (row(bench, task).state, row(bench, task).budgets.crashes) == (State.QUEUED, 0)


def test_saved_records_that_cannot_be_added_up_hold_the_task(bench: Bench) -> None:
    task = bench.submit()
    worker = bench.fork()
    bench.run(worker)
    worker.slot.append(Kind.STEP, {"path": "count", "value": 5})
    exited(bench, worker)
    bench.until(lambda: settled(bench, task))
    assert row(bench, task).state is State.HELD
    assert "cannot be added up" in row(bench, task).reason


def test_what_is_wrong_within_a_value_is_left_to_who_reads_it(bench: Bench) -> None:
    """The master reads no values: the next worker does, and holds the task."""
    task = bench.submit()
    worker = bench.fork()
    bench.run(worker)
    wrong = b"\xff not plain data"
    worker.slot.append(Kind.STEP, {"path": "count", "value": wrong})
    exited(bench, worker)
    bench.until(lambda: settled(bench, task))
    assert row(bench, task).state is State.QUEUED
    assert wrong in (Reading(bench.master.storage.reader).saved(task) or b"")


BREACHES: dict[str, list[dict[str, Any]]] = {
    "idle twice": [{"type": "idle", "reusable": True}],
    "ended without a task": [{"type": "ended", "task": 1, "attempt": 1}],
    "no type": [{"task": 1}],
    "a type that is no text": [{"type": 7}],
    "fields missing": [{"type": "progress", "task": 1}],
    "fields of a wrong type": [{"type": "idle", "reusable": "yes"}],
    "an end where there is none": [{"type": "ended", "task": 1, "attempt": 1, "offset": 9}],
    "an end before the file": [{"type": "ended", "task": 1, "attempt": 1, "offset": -1}],
    "an end far behind the file": [{"type": "ended", "task": 1, "attempt": 1, "offset": 1 << 63}],
    "a beginning as the end": [{"type": "ended", "task": 1, "attempt": 1, "offset": 4096}],
}


@pytest.mark.parametrize("breach", BREACHES)
def test_a_worker_that_breaks_the_protocol_loses_its_connection_alone(
    bench: Bench, breach: str
) -> None:
    task = bench.submit()
    worker = bench.fork()
    order = bench.run(worker)
    for message in BREACHES[breach]:
        worker.send(message)
    bench.until(lambda: worker.receive() is not None and worker.closed)
    assert row(bench, task).state is State.RUNNING, "its slot decides, once it is dead"
    who = {"task": order["task"], "attempt": order["attempt"]}
    worker.slot.append_end(who | {"outcome": "succeeded", "progressed": False, "version": 1})
    exited(bench, worker, 0)
    bench.until(lambda: settled(bench, task))
    assert row(bench, task).state is State.SUCCEEDED


HELLO = {"type": "hello", "role": "worker", "version": 1, "start": 1, "slot": "x", "busy": None}

STRANGERS: dict[str, dict[str, Any]] = {
    "an unknown id": HELLO | {"id": b"?" * 16, "pid": os.getpid()},
    "another's pid": HELLO | {"id": b"?" * 16, "pid": 1},
    "no role": {"type": "hello", "id": b"?" * 16, "pid": os.getpid(), "start": 1},
    "an id that is a list": HELLO | {"id": [1], "pid": os.getpid()},
    "no hello": {"type": "idle", "reusable": True},
    "an unknown zygote": HELLO | {"role": "zygote", "id": b"?" * 16, "pid": os.getpid()},
}


@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_stranger_is_turned_away(bench: Bench, stranger: str) -> None:
    line = Line(bench.connect(WORKER_SOCKET))
    line.send(STRANGERS[stranger])
    bench.until(lambda: line.receive() is not None and line.closed)
    assert not [entry for entry in bench.master.carried() if "stranger" in entry.name]


def test_a_zygote_that_says_hello_twice_is_heard_on_its_first_connection(bench: Bench) -> None:
    me = process.identity()
    bench.revision.zygote.id = b"z" * 16
    line = Line(bench.connect(WORKER_SOCKET))
    line.send(
        {"type": "hello", "role": "zygote", "id": b"z" * 16, "pid": me.pid, "start": me.start}
    )
    bench.until(lambda: line.receive() is not None and line.closed)
    task = bench.submit()
    assert bench.until(lambda: bench.zygote.of("fork"))
    assert row(bench, task).state is State.QUEUED


def test_a_worker_whose_slot_is_not_there_is_turned_away(bench: Bench) -> None:
    bench.submit()
    asked = bench.until(lambda: bench.zygote.of("fork"))[0]
    line = Line(bench.connect(WORKER_SOCKET))
    line.send(HELLO | {"id": asked["worker"], "pid": os.getpid()})
    bench.until(lambda: line.receive() is not None and line.closed)


def test_a_worker_that_dies_before_it_is_ready_is_not_asked_for_again_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a full disk none can make its slot: a fork a millisecond helps nobody."""
    monkeypatch.setattr(workers, "FORK_PAUSE", 61.0)
    loop, put_off = bench.master.loop, []

    def after(seconds: float, action: Callable[[], None]) -> Timer:
        if seconds == workers.FORK_PAUSE:
            put_off.append(action)
        return Loop.after(loop, seconds, action)

    monkeypatch.setattr(loop, "after", after)
    bench.submit()
    asked = bench.until(lambda: bench.zygote.of("fork"))[0]
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    who = process.identity(child.pid)
    child.communicate()
    forked = {"type": "forked", "worker": asked["worker"], "pid": who.pid, "start": who.start}
    bench.zygote.send(forked)
    bench.zygote.send({"type": "exited", "worker": asked["worker"], "pid": 1, "status": 70 << 8})
    bench.until(lambda: bench.zygote.of("noted"))
    for _ in range(5):
        bench.turn()
    assert len(bench.zygote.of("fork")) == 1
    (resume,) = put_off
    resume()
    bench.until(lambda: len(bench.zygote.of("fork")) == 2)


def test_a_worker_that_becomes_idle_in_the_turn_of_a_fork_is_counted(bench: Bench) -> None:
    """Two tasks, two workers: what was missing when the tasks were looked at is none too many."""
    for _ in range(2):
        bench.submit()
    bench.until(lambda: len(bench.zygote.of("fork")) == 2)
    worker = bench.fork(idle=False)
    bench.until(lambda: [w for w in bench.master.workers if w.id == worker.id and w.channel])
    worker.send({"type": "idle", "reusable": True})
    bench.answer_fork()
    for _ in range(5):
        bench.turn()
    assert len(bench.zygote.of("fork")) == 2


def test_an_idle_worker_that_was_lost_is_given_nothing(bench: Bench) -> None:
    first = bench.submit()
    worker = bench.fork()
    order = bench.run(worker)
    bench.end(worker, order)
    bench.until(lambda: worker.of("noted"))
    worker.slot.reset()
    worker.send({"type": "idle", "reusable": True})
    bench.until(lambda: [w for w in bench.master.workers if w.state.value == "idle"])
    worker.sock.close()
    bench.until(lambda: [w for w in bench.master.workers if w.channel is None])
    second = bench.submit()
    bench.run(bench.fork())
    assert (row(bench, first).state, row(bench, second).state) == (State.SUCCEEDED, State.RUNNING)


def test_strangers_are_accepted_a_few_at_a_time_and_few_of_them_are_kept(bench: Bench) -> None:
    """A client has its answer before they are all in; and a worker comes in among them."""
    for _ in range(300):
        bench.connect(WORKER_SOCKET)
    client = PlayedClient(bench)
    bench.until(client.talk, "the client is greeted")
    strangers = bench.master.introductions.strangers
    assert 0 < len(strangers) <= 6 * introductions.ACCEPTED
    bench.until(lambda: len(strangers) == introductions.most_strangers(), "many are in")
    bench.submit()
    worker = bench.fork()
    bench.run(worker)
    assert len(strangers) <= introductions.most_strangers()
